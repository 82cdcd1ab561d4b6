import pytest
import torch
from transformers.generation.logits_process import MinNewTokensLengthLogitsProcessor, RepetitionPenaltyLogitsProcessor

from rapid_integrations.sampling import Penalties
from tests.toys.reference_law import lowered, penalised


def transformers_penalty(penalty: float, text: list[int], logits: torch.Tensor) -> torch.Tensor:
    return RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([text]), logits[None])[0]


@pytest.mark.parametrize("penalty", [0.5, 1.0, 1.2, 3.0])
def test_the_penalty_is_transformers_at_every_position_of_a_draft(penalty):
    generator = torch.Generator().manual_seed(0)
    prompt, output, draft = [3, 3, 7], [1, 12], [0, 7, 9]
    ours = Penalties(penalty, prompt, 16)
    ours.add(output[:1])
    ours.add(output[1:])
    for position in range(len(draft) + 1):
        logits = 2 * torch.randn(16, generator=generator)
        logits[:2] = 0.0  # where "positive or negative" is neither
        expected = transformers_penalty(penalty, [*prompt, *output, *draft[:position]], logits)
        assert torch.equal(ours.apply(logits, draft[:position]), expected)
        assert torch.equal(ours.apply(logits, tuple(draft[:position])), expected)


def test_a_draft_counts_only_where_it_is_named():
    logits = torch.tensor([1.0, -1.0, 2.0])
    ours = Penalties(2.0, [], 3)
    assert ours.apply(logits, [0, 1]).tolist() == [0.5, -2.0, 2.0]
    assert ours.apply(logits).tolist() == [1.0, -1.0, 2.0]  # the draft was rejected: nothing is left of it
    ours.add([2])
    ours.add([])
    assert ours.apply(logits).tolist() == [1.0, -1.0, 1.0]
    assert logits.tolist() == [1.0, -1.0, 2.0]


def test_impossible_tokens_stay_impossible():
    minus = float("-inf")
    assert Penalties(2.0, [0], 2).apply(torch.tensor([minus, 1.0])).tolist() == [minus, 1.0]


def test_prompt_tokens_beyond_the_shared_vocabulary_have_nothing_to_penalise():
    # As transformers has it. V is the narrower of two models; a prompt may hold a token that only the wider one knows.
    logits = torch.tensor([1.0, -1.0, 2.0])
    expected = transformers_penalty(2.0, [0, 5], logits)
    assert torch.equal(Penalties(2.0, [0, 5], 3).apply(logits), expected)


# --- no end before the least length ------------------------------------------------------------


def test_ends_are_impossible_before_the_least_length_as_in_transformers():
    prompt, output, draft, ends = [3, 3, 7], [1, 2], [0, 7, 9], [4, 9]
    theirs = MinNewTokensLengthLogitsProcessor(len(prompt), 4, ends)
    ours = Penalties(1.0, prompt, 16, ends=[*ends, 99], least=4)
    ours.add(output)
    for position in range(len(draft) + 1):
        logits = torch.randn(16, generator=torch.Generator().manual_seed(position))
        expected = theirs(torch.tensor([[*prompt, *output, *draft[:position]]]), logits[None])[0]
        assert torch.equal(ours.apply(logits, draft[:position]), expected)
    rows = torch.zeros(4, 16)
    assert torch.isinf(ours.apply_rows(rows, draft)).sum(-1).tolist() == [2, 2, 0, 0]
    assert ours.depends_on_text
    ours.add([5, 6])
    assert not ours.depends_on_text and torch.equal(ours.apply_rows(rows, draft), rows)


# --- frequency and presence ------------------------------------------------------------


@pytest.mark.parametrize(("frequency", "presence"), [(0.5, 0.0), (0.0, 1.5), (-2.0, 2.0), (0.1, 0.3)])
@pytest.mark.parametrize("repetition", [1.0, 1.3])
def test_penalties_are_openais_at_every_position_of_a_draft(frequency, presence, repetition):
    generator = torch.Generator().manual_seed(1)
    prompt, output, draft = [3, 3, 7], [1, 12, 1], [0, 1, 7, 0, 0]
    ours = Penalties(repetition, prompt, 16, frequency=frequency, presence=presence)
    ours.add(output[:2])
    ours.add(output[2:])
    for position in range(len(draft) + 1):
        logits = 2 * torch.randn(16, generator=generator)
        written = [*output, *draft[:position]]
        expected = lowered(penalised(logits.tolist(), {*prompt, *written}, repetition), written, frequency, presence)
        assert ours.apply(logits, draft[:position]).tolist() == pytest.approx(expected, abs=1e-6)


def test_what_was_drafted_and_what_was_committed_weigh_the_same_to_the_last_bit():
    logits = torch.randn(8, generator=torch.Generator().manual_seed(0))
    drafted = Penalties(1.0, [], 8, frequency=0.1, presence=0.7)
    committed = Penalties(1.0, [], 8, frequency=0.1, presence=0.7)
    for token in (2, 2, 5, 2):
        committed.add([token])
    assert torch.equal(drafted.apply(logits, (2, 2, 5, 2)), committed.apply(logits))
    assert torch.equal(drafted.apply(logits), logits)  # nothing is left of a draft


def test_the_prompt_is_not_written():
    logits = torch.tensor([1.0, -1.0])
    assert torch.equal(Penalties(1.0, [0, 1], 2, frequency=2.0, presence=2.0).apply(logits), logits)


def test_what_is_impossible_stays_so():
    minus = float("-inf")
    penalties = Penalties(1.0, [], 2, frequency=-2.0, presence=-2.0)
    penalties.add([0])
    assert penalties.apply(torch.tensor([minus, 1.0])).tolist() == [minus, 1.0]


def test_a_bias_is_added_behind_the_penalties():
    logits = torch.tensor([1.0, -1.0, 2.0])
    ours = Penalties(2.0, [0], 3, frequency=0.25, bias=[(0, 3.0), (2, -100.0)])
    ours.add([1])
    assert ours.apply(logits, [0]).tolist() == [0.5 - 0.25 + 3.0, -2.0 - 0.25, -98.0]
    assert logits.tolist() == [1.0, -1.0, 2.0]
