import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rapid_integrations.sampling import Law
from tests.toys.reference_law import augmented, reference_law, softmax
from tests.unit.sampling.strategies import logits

Z = torch.tensor([1.5, 0.2, -0.7, 0.9, -2.0])
DRAFTER = torch.tensor([-1.0, 2.0, 0.3, 0.5, -0.2])

TRUNCATIONS = ({}, {"top_k": 3}, {"top_p": 0.8}, {"min_p": 0.2}, {"top_k": 4, "top_p": 0.9, "min_p": 0.1})


@pytest.mark.parametrize("kind", ["target", "augmented", "paper"])
@pytest.mark.parametrize("cut", TRUNCATIONS, ids=str)
def test_the_order_is_softmax_shift_tail_rule_truncation(kind, cut):
    for temperature, eta, rule in itertools.product((0.3, 1.0, 1.7), (0.0, 5.0), ("mask", "restore")):
        law = Law(kind, temperature=temperature, eta=eta, tail_rule=rule, **cut)
        formed = law.form(Z, DRAFTER if law.needs_drafter else None)
        assert formed.tolist() == pytest.approx(reference_law(Z.tolist(), DRAFTER.tolist(), law), abs=1e-6)


def test_truncation_follows_the_shift():
    # Token 1 is no part of the target's best three, but of p_hat's: truncating first would have lost it.
    law = Law("augmented", temperature=1.0, eta=10.0, top_k=1)
    assert law.form(Z, None).argmax() == 0
    assert law.form(Z, DRAFTER).tolist() == [0.0, 1.0, 0.0, 0.0, 0.0]


@given(z=logits(), drafter_logits=logits(), kind=st.sampled_from(["target", "augmented", "paper"]))
def test_greedy_is_a_point_mass_on_the_best_of_the_law_at_temperature_one(z, drafter_logits, kind):
    law = Law(kind, eta=10.0)
    formed = law.form(z, drafter_logits if law.needs_drafter else None)
    scores = augmented(z.tolist(), drafter_logits.tolist(), law) if law.needs_drafter else softmax(z.tolist())
    assert sorted(formed.tolist()) == [0.0, 0.0, 0.0, 0.0, 1.0]
    assert scores[int(formed.argmax())] == pytest.approx(max(scores), rel=1e-4)  # the best, or as good up to rounding


def test_greedy_still_hears_the_drafter():
    assert Law("augmented", eta=10.0).form(Z, DRAFTER).argmax() == 1
    assert Law("augmented", eta=0.0).form(Z, DRAFTER).argmax() == 0


def test_the_drafter_draws_from_its_own_truncated_distribution():
    law = Law("augmented", temperature=0.7, eta=5.0, top_p=0.8)
    expected = reference_law(DRAFTER.tolist(), [], Law("target", temperature=0.7, top_p=0.8))
    assert law.propose(DRAFTER).tolist() == pytest.approx(expected, abs=1e-6)
    assert Law("augmented").propose(DRAFTER) is None  # greedy: a point mass


def test_logits_are_left_alone():
    z, drafter_logits = Z.clone(), DRAFTER.clone()
    for law in (
        Law("augmented", temperature=0.7, tail_rule="restore", top_k=2, top_p=0.9, min_p=0.1),
        Law("augmented"),
    ):
        law.form(z, drafter_logits)
        law.propose(drafter_logits)
    assert torch.equal(z, Z) and torch.equal(drafter_logits, DRAFTER)


def test_a_strong_shift_reaches_tokens_that_a_low_temperature_makes_tiny():
    # Eq. 6 in logits: (0 - 11) / 0.1 + 60 * 2 = +10 in favour of the second token, whose p is e^-110: 0 in float32.
    law = Law("augmented", temperature=0.1, eta=60.0, tail_alpha=0.0)
    z, drafter_logits = torch.tensor([11.0, 0.0]), torch.tensor([0.0, 11.0])
    assert law.form(z, drafter_logits).tolist() == pytest.approx(
        reference_law(z.tolist(), drafter_logits.tolist(), law), abs=1e-6
    )


@pytest.mark.parametrize("temperature", [1e-3, 1e-6, 1e-30, 1e-38, 1e-44])
@pytest.mark.parametrize("kind", ["target", "augmented"])
def test_a_tiny_temperature_is_nearly_greedy(kind, temperature):
    law = Law(kind, temperature=temperature)
    formed = law.form(10 * Z, 10 * DRAFTER if law.needs_drafter else None)
    assert formed.tolist() == pytest.approx([1.0, 0.0, 0.0, 0.0, 0.0], abs=1e-6)
