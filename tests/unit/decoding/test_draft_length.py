import random
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapid_integrations.decoding.draft_length import (
    AdaptiveDraftLength,
    CostModel,
    FixedDraftLength,
    LinearCost,
    RoundTimes,
)

CHEAP = CostModel(propose=0.02, score=0.0, verify=1.0, verify_per_token=0.01)
DEAR = CostModel(propose=1.5, score=0.0, verify=1.0, verify_per_token=0.05)


def round_of(
    drafted: int, accepted: int, *, propose: float = 0.0, score: float = 0.0, verify: float = 1.0
) -> RoundTimes:
    """What a round took; `propose` is per drafted token."""
    return RoundTimes(drafted, accepted, propose * drafted, score, verify)


def play(draft_length: AdaptiveDraftLength, rounds: int, acceptance: float, seed: int = 0, **costs: float) -> list[int]:
    """Run rounds in which each token is accepted with this probability; return the lengths chosen."""
    rng = random.Random(seed)
    chosen = []
    for _ in range(rounds):
        length = draft_length.next()
        accepted = next((i for i in range(length) if rng.random() >= acceptance), length)
        draft_length.observe(round_of(length, accepted, **costs))
        chosen.append(length)
    return chosen


def best_length(acceptance: float, costs: CostModel, longest: int) -> int:
    """The length with the most expected tokens per unit of cost, counted token by token."""

    def speed(length: int) -> float:
        tokens = sum(acceptance**i for i in range(length + 1))  # token i comes out if all before it were accepted
        return tokens / (costs.verify + costs.score + length * (costs.propose + costs.verify_per_token))

    return max(range(longest + 1), key=speed)


def test_fixed():
    draft_length = FixedDraftLength(5)
    draft_length.observe(round_of(5, 0))
    assert [draft_length.next(), draft_length.next()] == [5, 5]


@pytest.mark.parametrize("acceptance", [0.05, 0.4, 0.8, 0.97])
@pytest.mark.parametrize("propose", [0.01, 0.2, 0.6])
def test_the_length_is_the_best_for_the_acceptance(acceptance, propose):
    costs = CostModel(propose=propose, score=0.3, verify=1.0, verify_per_token=0.02)
    draft_length = AdaptiveDraftLength(16, replace(costs), measure=False, min_length=1)
    play(draft_length, 400, acceptance)
    assert draft_length.next() == max(1, best_length(draft_length.acceptance, costs, 16))


def test_the_acceptance_is_learnt_without_bias():
    for acceptance in (0.2, 0.5, 0.8):
        draft_length = AdaptiveDraftLength(4, replace(CHEAP), measure=False, min_length=4)
        estimates = []
        for seed in range(400):
            play(draft_length, 5, acceptance, seed)
            estimates.append(draft_length.acceptance)
        assert sum(estimates[10:]) / len(estimates[10:]) == pytest.approx(acceptance, abs=0.04)


@pytest.mark.in_turn(3)
@pytest.mark.parametrize("measure", [True, False], ids=["measured", "unmeasured"])
@pytest.mark.parametrize("augmented", [True, False], ids=["augmented", "target"])
@pytest.mark.parametrize("propose", [1.0, 0.2, 0.05])
@pytest.mark.parametrize("acceptance", [0.75, 0.95])
def test_the_speed_is_nearly_that_of_the_best_fixed_length(acceptance, propose, augmented, measure):
    """A drafter that proposes. Under the law "augmented" a round that accepts everything, and so one that drafts
    nothing, needs q behind its last token too: one more pass of the drafter.
    """
    base, slope, seconds = 1.0, 0.05, 0.01
    guess = CostModel(propose=propose, score=propose * augmented, verify=base, verify_per_token=slope)

    def fixed(length: int) -> float:
        last = propose * augmented * acceptance**length
        return sum(acceptance**i for i in range(length + 1)) / (base + length * (slope + propose) + last)

    draft_length, rng = AdaptiveDraftLength(16, guess, measure=measure), random.Random(0)
    tokens, cost = 0, 0.0
    for _ in range(1000):
        length = draft_length.next()
        accepted = next((i for i in range(length) if rng.random() >= acceptance), length)
        score, verify = propose * augmented * (accepted == length), base + length * slope
        draft_length.observe(
            round_of(length, accepted, propose=seconds * propose, score=seconds * score, verify=seconds * verify)
        )
        tokens, cost = tokens + accepted + 1, cost + length * propose + score + verify
    assert tokens / cost > 0.85 * max(fixed(length) for length in range(17))


def test_long_drafts_where_they_are_cheap_and_right():
    draft_length = AdaptiveDraftLength(16, replace(CHEAP), measure=False)
    assert set(play(draft_length, 60, 1.0)[20:]) == {16}


def test_short_drafts_where_they_are_wrong():
    draft_length = AdaptiveDraftLength(16, replace(CHEAP), measure=False)
    assert max(play(draft_length, 200, 0.1)[60:]) <= 3


def test_none_where_drafting_costs_more_than_it_gives():
    draft_length = AdaptiveDraftLength(16, replace(DEAR), measure=False)
    assert set(play(draft_length, 25, 1.0)) == {0}  # one token costs more passes than the account covers at first


def test_the_least_length_is_kept():
    draft_length = AdaptiveDraftLength(16, replace(DEAR), measure=False, min_length=2)
    assert set(play(draft_length, 80, 0.0)) == {2}


def test_drafting_is_tried_again_at_growing_distances():
    dear = CostModel(propose=0.6, score=0.0, verify=1.0, verify_per_token=0.2)
    draft_length = AdaptiveDraftLength(16, dear, measure=False)
    chosen = play(draft_length, 1500, 0.0)
    assert set(chosen) == {0, 1}
    trials = [at for at, length in enumerate(chosen) if length]
    waits = [after - before - 1 for before, after in zip(trials, trials[1:], strict=False)]
    longest = AdaptiveDraftLength.LONGEST_WAIT
    assert waits == sorted(waits) and waits[-1] == longest and waits[0] < longest
    # Once drafts are right again, they are made again.
    assert min(play(draft_length, 3000, 1.0)[-50:]) > 0


def test_a_writer_that_costs_a_pass_is_not_tried_again_soon_though_every_token_was_right():
    near = CostModel(propose=0.97, score=0.0, verify=1.0, verify_per_token=0.1)
    chosen = play(AdaptiveDraftLength(8, near), 600, acceptance=1.0, propose=0.97)
    tried = [place for place, length in enumerate(chosen) if length]
    assert [after - before for before, after in pairwise(tried)] == [AdaptiveDraftLength.LONGEST_WAIT + 1] * 2
    assert set(chosen) == {0, 1}


@pytest.mark.parametrize(("propose", "written"), [(0.70, True), (0.82, False)])
def test_a_writer_is_asked_if_that_promises_more_than_a_margin(propose, written):
    costs = CostModel(propose=propose, score=0.0, verify=1.0, verify_per_token=0.15)  # 1.08 or 1.01 of the plain speed
    chosen = play(AdaptiveDraftLength(1, costs, measure=False), 600, acceptance=1.0)
    assert (min(chosen[-100:]) > 0) is written


def test_copies_need_no_margin():
    costs = CostModel(propose=0.0, score=0.0, verify=1.0, verify_per_token=0.95)
    assert min(play(AdaptiveDraftLength(1, costs, measure=False), 600, acceptance=1.0)[-100:]) > 0


def test_a_writer_that_seemed_dear_once_is_used_when_it_is_tried_again():
    chooser = AdaptiveDraftLength(8, replace(CHEAP, propose=0.97))
    play(chooser, 40, acceptance=1.0, propose=3.0)
    play(chooser, 300, acceptance=1.0, propose=0.1)
    assert chooser.next() == 8


def test_rounds_that_could_not_draft_teach_nothing_about_acceptance():
    draft_length = AdaptiveDraftLength(16, replace(CHEAP), measure=False)
    before = draft_length.acceptance
    for _ in range(50):
        draft_length.observe(round_of(0, 0))  # prompt lookup found nothing
    assert draft_length.acceptance == pytest.approx(before)


def test_without_measuring_the_tokens_alone_decide():
    rng = random.Random(1)
    quick, slow = (AdaptiveDraftLength(16, replace(CHEAP), measure=False) for _ in range(2))
    for _ in range(200):
        length = quick.next()
        assert slow.next() == length
        accepted = rng.randint(0, length)
        quick.observe(round_of(length, accepted, propose=1e-6, score=1e-6, verify=1e-6))
        slow.observe(round_of(length, accepted, propose=1e3, score=1e3 * rng.random(), verify=1e-3))


def test_measured_costs_replace_the_guess():
    # The guess says that drafting is cheap; the clock says that it is not.
    draft_length = AdaptiveDraftLength(16, replace(CHEAP))
    assert draft_length.next() > 4
    assert set(play(draft_length, 60, 0.7, propose=0.02, verify=0.01)[2:]) <= {0, 1}
    # And the other way round.
    draft_length = AdaptiveDraftLength(16, CostModel(propose=0.3, score=0.0, verify=1.0, verify_per_token=0.01))
    assert min(play(draft_length, 60, 1.0, propose=1e-4, verify=0.01)[20:]) == 16


def test_measured_costs_follow_a_change():
    draft_length = AdaptiveDraftLength(16, replace(CHEAP))
    assert min(play(draft_length, 60, 0.95, propose=0.0002, verify=0.01)[20:]) >= 8
    # The machine has become busy with the drafter's part: drafting no longer pays, but for the probes.
    assert max(play(draft_length, 60, 0.95, propose=0.05, verify=0.01)[40:]) <= 1


@pytest.mark.parametrize("unit", [1.0, 2.7e8], ids=["seconds", "bytes"])
def test_the_unit_of_the_guess_cancels_out_after_a_first_round_without_a_draft(unit):
    # Prompt lookup finds nothing, or the guess says K = 0: then the clock knows `verify` but not `propose`.
    guess = CostModel(propose=0.9 * unit, score=0.0, verify=unit, verify_per_token=0.05 * unit)
    draft_length = AdaptiveDraftLength(16, guess)
    assert draft_length.next() == 0
    draft_length.observe(round_of(0, 0, verify=0.01))
    # In truth drafting costs next to nothing, and is always right.
    chosen = play(draft_length, 10 * AdaptiveDraftLength.LONGEST_WAIT, 1.0, propose=1e-4, verify=0.01)
    assert max(chosen) > 1


def test_a_clock_that_did_not_move():
    draft_length = AdaptiveDraftLength(16, replace(CHEAP))
    for _ in range(3):
        draft_length.observe(round_of(1, 1, verify=0.0))
    assert 0 <= draft_length.next() <= 16


def test_slow_rounds_with_long_drafts():
    """The machine was busy with something else: a request is not to end for that."""
    draft_length = AdaptiveDraftLength(16, replace(CHEAP), min_length=0)
    for _ in range(30):
        draft_length.observe(round_of(4, 2, propose=1e-5, verify=0.001))
    for _ in range(2):
        draft_length.observe(round_of(10, 3, propose=1e-5, verify=1.0))
    assert 0 <= draft_length.next() <= 16
    for _ in range(10 * AdaptiveDraftLength.LONGEST_WAIT):  # it recovers
        draft_length.observe(round_of(length := draft_length.next(), length, propose=1e-5, verify=0.001))
    assert draft_length.next() > 4


def test_the_guess_is_left_alone():
    guess = replace(CHEAP)
    AdaptiveDraftLength(16, guess).observe(round_of(1, 1, propose=5.0, verify=7.0))
    assert guess == CHEAP


class TestLinearCost:
    def test_rounds_of_several_lengths_show_the_slope(self):
        cost = LinearCost(1.0, 0.05)
        for length in (4, 1, 6, 2, 5, 0, 3) * 6:
            cost.observe(length, 0.050 + 0.010 * length)
        assert cost(0) == pytest.approx(0.050, rel=0.15) and cost.slope == pytest.approx(0.010, rel=0.2)

    @pytest.mark.parametrize("length", [0, 3, 16])
    def test_rounds_of_one_length_keep_the_guessed_share(self, length):
        cost = LinearCost(1.0, 0.05)
        for _ in range(50):
            cost.observe(length, 7.0 * (1 + 0.05 * length))
        assert cost(0) == pytest.approx(7.0, rel=0.02) and cost.slope == pytest.approx(0.35, rel=0.02)

    def test_a_cost_that_falls_with_length_counts_as_level(self):
        cost = LinearCost(1.0, 0.0)
        for length in (0, 8) * 20:
            cost.observe(length, 2.0 - 0.1 * length)
        assert cost.slope == 0.0

    def test_no_round_is_free(self):
        cost = LinearCost(1.0, 0.05)
        for length, seconds in [(4, 0.001)] * 30 + [(10, 1.0)]:
            cost.observe(length, seconds)
        n, t = cost._rounds, cost._seconds
        assert 0 < cost(0) < cost(10)
        assert cost(cost._lengths / n) == pytest.approx(t / n, rel=0.2)  # the mean round still costs what it did

    @given(st.lists(st.tuples(st.integers(0, 32), st.floats(1e-6, 100.0)), min_size=1, max_size=60))
    def test_whatever_was_measured_every_length_costs_something(self, rounds):
        cost = LinearCost(1.0, 0.05)
        for length, seconds in rounds:
            cost.observe(length, seconds)
        assert cost.base > 0 and cost.slope >= 0

    def test_nothing_costs_nothing(self):
        cost = LinearCost(0.0, 0.0)
        cost.observe(3, 0.0)
        assert cost(5) == 0.0
