"""Whatever was accepted and rejected, each cache is what a fresh prefill of the same tokens would make it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapid_integrations.cache import CAPACITY_BUCKET
from rapid_integrations.decoding.passes import run_alone
from rapid_integrations.decoding.proposal import Proposal, Proposer
from rapid_integrations.decoding.reader import Reader
from tests.toys.budget import examples
from tests.toys.checked_requests import LAWS, NEW, Setting, assert_fresh, letters, lm, random_ids
from tests.toys.models import KINDS, VOCAB_SIZE
from tests.toys.requests import read


class Planned(Proposer):
    """Proposes right tokens and then wrong ones; `goods[round]` says how many right ones."""

    def __init__(self, expected, goods):
        self.expected, self.goods = [*expected, *range(64)], goods
        self.done = self.round = 0
        self.asked = []

    def propose(self, max_tokens, rng):
        self.asked.append(max_tokens)
        good = self.goods[self.round % len(self.goods)]
        self.round += 1
        known = self.expected[self.done : self.done + max_tokens]
        return Proposal(tuple(known[:good] + [(token + 1) % VOCAB_SIZE for token in known[good:]]))

    def commit(self, token_ids):
        self.done += len(token_ids)


KIND = st.sampled_from(KINDS)
LENGTHS = st.lists(st.integers(0, 10), min_size=1, max_size=6)


@settings(max_examples=examples(60))
@given(
    kind=KIND,
    drafter=KIND,
    law=st.sampled_from(sorted(LAWS)),
    lengths=LENGTHS,
    prompt=st.integers(1, 90),
    eos=st.frozensets(st.integers(0, VOCAB_SIZE - 1), max_size=30),
    seed=st.integers(0, 2**16),
)
def test_a_drafter_that_is_right_and_wrong_as_it_comes(kind, drafter, law, lengths, prompt, eos, seed):
    Setting(kind, drafter, prompt, LAWS[law], eos=eos).run(None, lengths, seed)


@settings(max_examples=examples(50), derandomize=True)  # a tie between two tokens must not come by chance
@given(
    kind=KIND,
    drafter=KIND,
    law=st.sampled_from(["target", "augmented"]),
    lengths=LENGTHS,
    goods=st.lists(st.integers(0, 11), min_size=1, max_size=6),
    prompt=st.integers(1, 90),
    end=st.sampled_from(["length", "eos", "stop"]),
    data=st.data(),
)
def test_any_pattern_of_accepts_and_rejects(kind, drafter, law, lengths, goods, prompt, end, data):
    setting = Setting(kind, drafter, prompt, LAWS[law])
    expected = list(setting.expected)
    last = data.draw(st.integers(0, NEW - 1))
    if end == "eos":
        setting.eos = frozenset({expected[last]})
        expected = expected[: expected.index(expected[last]) + 1]
    elif end == "stop":
        setting.stop = (letters(expected[last : last + 2]),)
        place = letters(expected).index(setting.stop[0])
        expected = expected[: place + len(setting.stop[0])]
    else:
        setting.new = last + 1
        expected = expected[: last + 1]
    output, rounds, *_ = setting.run(Planned(setting.expected, goods), lengths)
    assert output == expected
    assert rounds[-1].finish_reason == end
    assert all(taken.finish_reason is None for taken in rounds[:-1])


@settings(max_examples=examples(40))
@given(
    kind=KIND,
    steps=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 9), st.integers(1, 5)), min_size=1, max_size=5),
    seed=st.integers(0, 2**16),
)
def test_a_sequence_keeps_what_was_tried_right_and_nothing_else(kind, steps, seed):
    """What is committed need not have been tried at all, and may differ from it anywhere."""
    sequence = Reader(lm(kind, 1), random_ids(seed, 20), 200)
    run_alone(sequence.prefill())
    text = list(sequence.tokens)
    for number, (tried, alike, more) in enumerate(steps):
        draft = random_ids(seed + number, tried)
        read(sequence, draft, keep=1)
        wrong = [(token + 1) % VOCAB_SIZE for token in draft[alike : alike + 1]]
        committed = [*draft[:alike], *wrong, *draft[alike + 1 :], *random_ids(seed + 100 + number, more)]
        sequence.commit(committed)
        text += committed
        assert sequence.tokens == text
        assert_fresh(sequence)


# --- one round, by name ------------------------------------------------------------------------------------------


@pytest.fixture(params=["target", "augmented"])
def setting(request):
    return Setting(law=LAWS[request.param])


def first_round(setting, good, length):
    """Return what the first round took, and both sequences, with the request ending there."""
    prompts = setting.prompt
    output, rounds, target, drafter = setting.run(Planned(setting.expected, [good]), [length])
    assert target.tokens[:prompts] == random_ids(prompts, prompts)
    return output, rounds, target, drafter


def test_full_acceptance(setting):
    setting.new = 6
    output, rounds, target, drafter = first_round(setting, good=5, length=5)
    assert len(rounds) == 1
    assert output == setting.expected[:6]
    if setting.law.needs_drafter:
        assert drafter.cache.length == len(drafter.tokens) - 1


def test_rejection_at_the_first_token(setting):
    setting.new = 5
    output, rounds, target, drafter = first_round(setting, good=0, length=4)
    assert [len(taken.token_ids) for taken in rounds] == [1] * 5
    if setting.law.needs_drafter:
        assert drafter.cache.length == len(drafter.tokens) - 1


def test_rejection_in_the_middle(setting):
    setting.new = 3
    output, rounds, target, _ = first_round(setting, good=1, length=2)
    assert [len(taken.token_ids) for taken in rounds] == [2, 1]
    assert output == setting.expected[:3]


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("place", [0, 2, 4])
def test_an_end_of_sequence_inside_a_draft(setting, place):
    expected = setting.expected
    setting.eos = frozenset({expected[place]})
    output, rounds, target, drafter = first_round(setting, good=10, length=10)
    assert output == expected[: expected.index(expected[place]) + 1]
    assert (len(rounds), rounds[-1].finish_reason) == (1, "eos")
    assert len(target.tokens) == setting.prompt + len(output)  # the draft's tokens behind it are forgotten


def test_an_end_of_sequence_as_the_correction_and_as_the_bonus(setting):
    expected = setting.expected
    setting.eos = frozenset({expected[3]})
    assert expected.index(expected[3]) == 3
    for good, length in ((3, 8), (3, 3)):
        output, rounds, *_ = first_round(setting, good, length)
        assert output == expected[:4]
        assert (len(rounds), rounds[-1].finish_reason) == (1, "eos")


@pytest.mark.once
@pytest.mark.parametrize("place", [0, 3])
def test_a_stop_string_inside_a_draft(setting, place):
    expected = setting.expected
    setting.stop = (letters(expected[place : place + 2]),)
    output, rounds, target, _ = first_round(setting, good=10, length=10)
    assert output == expected[: place + 2]
    assert (len(rounds), rounds[-1].finish_reason) == (1, "stop")
    assert rounds[0].text == letters(expected[:place])


@pytest.mark.once
@pytest.mark.parametrize("new", [1, 2, 7])
def test_the_last_token_that_is_wanted_inside_a_draft(setting, new):
    expected = setting.expected[:new]
    setting.new = new
    output, rounds, target, _ = first_round(setting, good=10, length=10)
    assert output == expected
    assert (len(rounds), rounds[-1].finish_reason) == (1, "length")


def test_a_draft_never_takes_more_room_than_the_answer():
    setting = Setting(prompt=CAPACITY_BUCKET - NEW)  # the cache is full with the last token
    proposer = Planned(setting.expected, [11, 0, 3])
    output, *_ = setting.run(proposer, [10])
    assert output == setting.expected
    taken = 0
    for asked in proposer.asked:
        assert asked <= NEW - taken - 1
        taken += 1
    assert proposer.asked[-1] < 10
