"""Drafts never lose more than the account allows, whatever they cost and however often they are right."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapid_integrations.decoding.account import FIRST, FIRST_OF_A_WRITER, PER_TOKEN, Account
from rapid_integrations.decoding.draft_length import AdaptiveDraftLength, CostModel, RoundTimes
from rapid_integrations.decoding.tree_shape import AdaptiveShape


def cost_of(chooser, acceptance, costs, tokens, seed=0):
    """Write tokens of which each draft token is right with a probability; return the passes that it took."""
    rng, done, passes = random.Random(seed), 0, 0.0
    while done < tokens:
        length = chooser(acceptance)
        accepted = next((i for i in range(length) if rng.random() >= acceptance), length)
        chooser.observe(RoundTimes(length, accepted, 0.0, 0.0, 0.0))
        done += accepted + 1
        passes += 1 + length * (costs.propose + costs.verify_per_token)
    return passes, done


class Lengths(AdaptiveDraftLength):
    def __call__(self, acceptance):
        return self.next()


class Shapes(AdaptiveShape):
    def __call__(self, acceptance):  # it believes in its tokens, however wrong they are
        return self.choose([0.9] * 16)


COSTS = st.builds(CostModel, st.floats(0, 2), st.just(0.0), st.just(1.0), st.floats(0, 0.5))


@pytest.mark.long
@settings(max_examples=300)
@given(COSTS, st.floats(0, 1), st.integers(1, 300), st.integers(0, 9))
def test_what_drafts_lose_is_bounded(costs, acceptance, tokens, seed):
    passes, done = cost_of(Lengths(16, costs, measure=False), acceptance, costs, tokens, seed)
    first = FIRST_OF_A_WRITER if costs.propose else FIRST
    assert passes <= done + first + PER_TOKEN * done + 1e-6


@given(st.floats(0, 0.5), st.floats(0, 1), st.integers(1, 300))
def test_so_is_what_trees_lose(row, acceptance, tokens):
    costs = CostModel(0.0, 0.0, 1.0, row)
    passes, done = cost_of(Shapes(15, costs, measure=False), acceptance, costs, tokens)
    assert passes <= done + FIRST + PER_TOKEN * done + 1e-6


def test_an_answer_of_17_tokens_loses_less_than_a_twentieth_to_copies():
    assert FIRST + 17 * PER_TOKEN < 0.05 * 17


def test_and_one_of_64_tokens_to_a_writer():
    assert FIRST_OF_A_WRITER + 64 * PER_TOKEN < 0.05 * 64


@pytest.mark.parametrize("acceptance", [0.6, 0.8, 0.95])
def test_good_drafts_lose_little_of_their_gain(acceptance):
    costs = CostModel(0.1, 0.0, 1.0, 0.1)
    best = max(sum(acceptance**i for i in range(k + 1)) / (1 + 0.2 * k) for k in range(17))
    runs = [cost_of(Lengths(16, costs, measure=False), acceptance, costs, 64, seed) for seed in range(40)]
    assert sum(done for _, done in runs) / sum(passes for passes, _ in runs) > 0.9 * best


def test_gains_pay_for_longer_drafts():
    account = Account(FIRST)
    assert account.covers(FIRST) and not account.covers(FIRST + 0.01)
    account.book(accepted=3, more=0.5)
    assert account.covers(FIRST + 2.5)
    account.book(accepted=0, more=3.0)
    assert not account.covers(FIRST)
