"""The model of a round: what it gives for known acceptance and costs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapid_integrations.benchmarks.round_costs import (
    MAX_DRAFT_LENGTH,
    RoundCosts,
    expected_tokens,
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
