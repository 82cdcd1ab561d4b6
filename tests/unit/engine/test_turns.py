"""Who is next: running answers, or a piece of a prompt."""

import pytest

from rapid_integrations.engine.turns import ANSWERS_SHARE, Turns


@pytest.mark.parametrize("step", [0.01, 0.1, 0.3])
def test_answers_get_their_share_of_the_time_or_one_pass(step):
    turns, wrote, read = Turns(), 0.0, 0.0
    for _ in range(20):
        while True:
            turns.wrote(step)
            wrote += step
            if not turns.answers_are_due:
                break
        turns.read_piece(0.6)
        read += 0.6
    share = wrote / (wrote + read)
    assert share == pytest.approx(max(ANSWERS_SHARE, step / (step + 0.6)), abs=0.02)
