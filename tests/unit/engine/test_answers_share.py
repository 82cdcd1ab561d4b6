"""Who is next: running answers, or a piece of a prompt."""

import pytest

from rapid_integrations.engine.answers_share import ANSWERS_SHARE, AnswersShare


@pytest.mark.parametrize("step", [0.01, 0.1, 0.3])
def test_answers_get_their_share_of_the_time_or_one_pass(step):
    share, wrote, read = AnswersShare(), 0.0, 0.0
    for _ in range(20):
        while True:
            share.wrote(step)
            wrote += step
            if not share.is_due:
                break
        share.read_piece(0.6)
        read += 0.6
    got = wrote / (wrote + read)
    assert got == pytest.approx(max(ANSWERS_SHARE, step / (step + 0.6)), abs=0.02)
