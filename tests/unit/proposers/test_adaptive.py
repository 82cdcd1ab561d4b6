"""The proposer that prefers whichever of its candidates was fastest so far."""

from dataclasses import replace

import pytest

from rapid_integrations import CompressionConfig, Prompt, RapidEngine, SamplingParams, SpeculationConfig
from rapid_integrations.decoding.draft_length import CostModel, RoundTimes
from rapid_integrations.decoding.draft_lengths import DraftLengths
from rapid_integrations.decoding.passes import run_alone
from rapid_integrations.decoding.proposal import Proposal, Proposer
from rapid_integrations.models.hf import HuggingFaceLM
from rapid_integrations.models.loader import LoadedModel
from rapid_integrations.models.vocabulary import Vocabulary
from rapid_integrations.proposers.adaptive import Adaptive, Gain
from rapid_integrations.proposers.suite import check_proposer
from tests.toys.embedder import HashEmbedder
from tests.toys.models import EOS_ID, byte_tokenizer, tiny_model, words

COSTS = CostModel(0.5, 0.0, 1.0, 0.1)
SMALL = CompressionConfig(chunk_tokens=16, min_tokens=64, min_chunks=1)


class Always(Proposer):
    def __init__(self, token, finds=True):
        self.token, self.finds, self.seen, self.rounds, self.plain = token, finds, [], 0, 0

    def propose(self, limit, rng):
        return Proposal((self.token,) * min(limit, 4) if self.finds else ())

    def observe(self, times):
        self.rounds += times.drafted > 0
        self.plain += times.verify_s > 0 and not times.drafted

    def commit(self, token_ids):
        self.seen += token_ids


def rounds(adaptive, number, accepted, seconds=lambda token: 1.0):
    """Run rounds; return which token each proposed (None: nothing)."""
    used = []
    for _ in range(number):
        tokens = run_alone(adaptive.propose(4, None)).token_ids
        token = tokens[0] if tokens else None
        adaptive.commit((token or 0,))
        adaptive.observe(RoundTimes(len(tokens), accepted.get(token, 0), 0.0, 0.0, seconds(token)))
        used.append(token)
    return used


def made(*proposers, measure=False):
    return Adaptive([(each, Gain(COSTS, measure=measure)) for each in proposers], Gain(COSTS, measure=measure))


def test_each_is_tried_and_the_best_preferred():
    used = rounds(made(Always(1), Always(2)), 20, {1: 0, 2: 4})
    assert used[:6] == [1, 1, 2, 2, None, None]
    assert set(used[6:]) == {2}


def test_all_learn_what_a_round_without_a_draft_takes():
    finds, nothing = Always(1), Always(2, finds=False)
    used = rounds(made(finds, nothing), 6, {1: 4})
    assert 0 < used.count(None) < 6
    assert finds.plain == nothing.plain == used.count(None)
    assert (finds.rounds, nothing.rounds) == (used.count(1), 0)


def test_nothing_is_proposed_if_drafts_do_not_pay():
    assert set(rounds(made(Always(1), Always(2)), 20, {})[6:]) == {None}


def test_one_that_was_idle_for_long_is_tried_again():
    adaptive = made(Always(1))
    used = rounds(adaptive, 3 * Adaptive.RETRY_AFTER, {})
    later = [at for at, token in enumerate(used[4:]) if token == 1]
    assert len(later) == 2 * Adaptive.TRIALS
    assert set(rounds(adaptive, 2 * Adaptive.RETRY_AFTER, {1: 4})[-20:]) == {1}


def test_the_next_one_is_asked_if_the_best_finds_nothing():
    first, second = Always(1), Always(2)
    adaptive = made(first, second)
    rounds(adaptive, 20, {1: 4, 2: 3})
    first.finds = False
    learnt = first.rounds
    assert set(rounds(adaptive, 5, {2: 3})) == {2} and first.rounds == learnt
    assert len(first.seen) == len(second.seen) == 25


def test_a_clock_counts_only_where_it_may():
    def slow_second(token):
        return 100.0 if token == 2 else 1.0

    assert set(rounds(made(Always(1), Always(2), measure=True), 20, {1: 3, 2: 4}, slow_second)[6:]) == {1}
    with_clock = rounds(made(Always(1), Always(2)), 20, {1: 3, 2: 4}, slow_second)
    assert with_clock == rounds(made(Always(1), Always(2)), 20, {1: 3, 2: 4})
    assert set(with_clock[6:]) == {2}


def test_the_modelled_cost_of_a_round():
    assert COSTS.of_round(2, 1) == pytest.approx(2 * 0.5 + 1.0 + 2 * 0.1)
    scored = replace(COSTS, score=0.25, score_per_token=0.05)
    assert scored.of_round(2, 1) == pytest.approx(2.2 + 0.25 + 0.1)
    drafted = replace(COSTS, score=0.25, score_when_accepted=True)
    assert drafted.of_round(2, 1) == pytest.approx(2.2) and drafted.of_round(2, 2) == pytest.approx(2.45)


@pytest.mark.parametrize("measure", [True, False])
def test_lengths_say_whether_a_clock_may_count(measure):
    made = DraftLengths.adaptive(
        8, verify=10.0, score=4.0, write=3.0, scores_own_drafts=True, together=False, measure=measure
    )
    assert made.measure is measure and made.drafts.propose == 3.0 and made.copies.propose == 0.0
    assert not DraftLengths.fixed(3).measure


def test_the_law_is_unchanged_whatever_is_chosen(monkeypatch):
    """With one trial each, short answers already reach rounds in which speeds decide."""
    monkeypatch.setattr(Adaptive, "TRIALS", 1)
    monkeypatch.setattr(Adaptive, "RETRY_AFTER", 1)
    check_proposer("adaptive", new_tokens=3, draft_lengths=(1, 2))


@pytest.mark.parametrize(
    ("sampling", "measure"),
    [({"temperature": 1.0, "seed": 3}, False), ({"temperature": 1.0}, True), ({"temperature": 0.0, "seed": 3}, True)],
)
def test_a_seeded_sample_never_looks_at_a_clock(monkeypatch, sampling, measure):
    """The engine gives modelled costs to a seeded sample, and the sample repeats."""
    made = []
    monkeypatch.setattr(Gain, "__init__", _recorded(Gain.__init__, made))
    model = LoadedModel(HuggingFaceLM(tiny_model("llama", 0)), Vocabulary(byte_tokenizer(), frozenset({EOS_ID})))
    answers = []
    for _ in range(2):
        with RapidEngine(model, embedder=HashEmbedder(threshold=-1.0), compression=SMALL) as engine:
            answer = engine.generate(
                Prompt.from_context(words(0, 80), "which words?"),
                sampling=SamplingParams(max_new_tokens=24, **sampling),
                speculation=SpeculationConfig(proposer="adaptive", law="augmented", eta=5.0),
            )
        answers.append(answer.token_ids)
    assert answer.stats.proposer == "adaptive" and len(made) == 6 and set(made) == {measure}
    assert not sampling.get("seed") or answers[0] == answers[1]


def _recorded(init, made):
    def recorded(self, costs, *, measure):
        made.append(measure)
        init(self, costs, measure=measure)

    return recorded
