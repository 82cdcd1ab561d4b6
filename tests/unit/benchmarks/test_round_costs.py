"""The model of a round: what it gives for known acceptance and costs."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapid_integrations.benchmarks.round_costs import (
    MAX_DRAFT_LENGTH,
    RoundCosts,
    expected_tokens,
    measured_costs,
    per_token_acceptance,
)


@pytest.mark.parametrize("k", [0, 1, 4])
def test_the_tokens_of_a_round_are_a_geometric_sum(k):
    assert expected_tokens(0.7, k) == pytest.approx(sum(0.7**i for i in range(k + 1)))
    assert expected_tokens(0.0, k) == 1
    assert expected_tokens(1.0, k) == pytest.approx(k + 1, rel=1e-2)


@given(st.floats(0.01, 0.99), st.integers(1, 16))
def test_acceptance_is_found_again(a, k):
    assert per_token_acceptance(expected_tokens(a, k) - 1, k) == pytest.approx(a, abs=1e-4)


def test_free_drafts_pay_and_dear_ones_do_not():
    free = RoundCosts(acceptance=0.8, draft_s=0.0, verify_s=1.0)
    assert free.best()[1] == MAX_DRAFT_LENGTH and free.best()[0] == pytest.approx(5, rel=0.01)
    dear = RoundCosts(acceptance=0.8, draft_s=1.0, verify_s=1.0)
    assert dear.best() == (1.0, 0)


def test_the_limit_is_what_would_help_most():
    assert RoundCosts(0.99, draft_s=0.5, verify_s=1.0).limit()[0] == "the cost of a draft token"
    assert RoundCosts(0.3, draft_s=0.01, verify_s=1.0).limit()[0] == "rejected drafts"
    assert RoundCosts(0.9, draft_s=0.0, verify_s=0.1, outside_s=9.0).limit()[0] == "work outside these passes"
    costs = RoundCosts(0.7, 0.2, 1.0, 0.05, 0.1, 0.1)
    assert all(ideal >= costs.best()[0] for ideal in costs.ideals().values())


def stats(rounds, drafted, verify_s, joint, score_s=0.0):
    return SimpleNamespace(
        rounds=rounds,
        drafted_tokens=drafted,
        accepted_tokens=drafted // 2,
        propose_s=0.0,
        score_s=score_s,
        verify_s=verify_s,
        decode_s=verify_s + score_s,
        scored_with_target=joint,
    )


@pytest.mark.parametrize("drafted", [10, 40])
def test_the_drafters_own_row_is_no_cost_of_a_draft(drafted):
    alone = stats(20, 0, 20.0, None)
    rows = 20 + 2 * drafted + 20  # of the target, of drafts, of the law; further ones take a tenth
    shared = measured_costs([stats(20, drafted, 20.0 + 0.1 * (rows - 20), True)], [alone])
    assert shared.verify_per_token_s == pytest.approx(0.2) and shared.score_s == pytest.approx(0.1)
    apart = measured_costs([stats(20, drafted, 20.0 + 0.1 * drafted, False, score_s=4.0)], [alone])
    assert apart.verify_per_token_s == pytest.approx(0.1) and apart.score_s == pytest.approx(0.2)
