"""With a constraint, the output follows the masked law: enumerated exactly, whatever proposes and however far."""

import itertools
from dataclasses import replace

import pytest
import torch

from rapid_integrations.decoding.proposal import Proposal
from rapid_integrations.proposers.suite.table_model import TableLM
from rapid_integrations.sampling import Law, Randomness, allowed_prefix
from tests.toys.constraint import ScriptedConstraint, hashed
from tests.toys.distributions import largest_difference, total_variation
from tests.toys.enumerated_requests import (
    AUGMENTED_LAW,
    SETTINGS,
    TARGET_LAW,
    TOLERANCE,
    Oracle,
    ScriptedDraftLength,
    Stubborn,
    deviation,
    near,
    outcomes,
    request,
)
from tests.toys.requests import ToyRequest

GUESSES = [("none", 1), ("drafter", 1), ("drafter", 2), ("drafter", 3), ("prompt_lookup", 2), (Oracle, 2)]


@pytest.mark.pairs
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: "-".join(str(value) for value in settings.values()))
@pytest.mark.parametrize(("proposer", "length"), GUESSES)
@pytest.mark.parametrize("kind", ["target", "augmented"])
def test_the_output_follows_the_masked_law(kind, proposer, length, settings):
    for seed in (3, 7):
        toy = request(
            kind,
            settings,
            proposer=proposer,
            draft_length=length,
            max_new_tokens=max(3, length + 1),
            allowed_after=hashed(seed, 3),
        )
        assert deviation(toy) < TOLERANCE


@pytest.mark.parametrize("kind", ["target", "augmented"])
@pytest.mark.parametrize("cut", [{"top_k": 1}, {"top_k": 2, "top_p": 0.5}, {"min_p": 0.6}], ids=str)
def test_truncation_that_leaves_nothing_allowed_is_undone(kind, cut):
    for proposer in ("drafter", "prompt_lookup"):
        toy = ToyRequest(
            Law(kind, temperature=0.7, eta=5.0, **cut),
            proposer,
            target=TableLM(5, 5),
            drafter=TableLM(6, 5),
            vocab_size=5,
            allowed_after=hashed(11, 5),
        )
        assert deviation(toy) < TOLERANCE


@pytest.mark.parametrize("law", [TARGET_LAW, AUGMENTED_LAW], ids=lambda law: law.kind)
def test_every_draft_length_and_proposer_gives_the_same_outputs(law):
    rule = hashed(5, 3)
    plain = outcomes(ToyRequest(law, "none", allowed_after=rule))
    assert total_variation(plain, outcomes(ToyRequest(law, "none"))) > 0.1
    for proposer, length in (
        ("drafter", lambda: ScriptedDraftLength(2, 0, 1)),
        ("prompt_lookup", lambda: ScriptedDraftLength(0, 2)),
        (lambda request: Stubborn([[1 / 3] * 3] * 3), 2),  # draws forbidden tokens, too: they are rejected
        (lambda request: Stubborn([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]), 2),
    ):
        assert largest_difference(outcomes(ToyRequest(law, proposer, length, allowed_after=rule)), plain) < TOLERANCE


@pytest.mark.parametrize("length", [1, 2])
def test_the_published_rule_stays_within_the_constraint(length):
    rule = hashed(7, 3)
    published = outcomes(ToyRequest(Law("paper", temperature=1.0, eta=5.0), "drafter", length, allowed_after=rule))
    assert sum(published.values()) == pytest.approx(1.0)
    for output in published:
        assert all(token in rule(output[:place]) for place, token in enumerate(output))


@pytest.mark.pairs
@pytest.mark.parametrize("length", [1, 2, 5])
@pytest.mark.parametrize("proposer", ["drafter", "prompt_lookup", "none", Oracle])
@pytest.mark.parametrize("kind", ["target", "augmented", "paper"])
def test_greedy_output_is_the_best_allowed_token(kind, proposer, length):
    if kind == "paper" and proposer != "drafter":
        pytest.skip("the published rule takes drafts of the drafter only")
    for seed, eta in itertools.product(range(4), (0.0, 10.0)):
        model = TableLM(seed, 6)
        toy = ToyRequest(
            Law(kind, eta=eta),
            proposer,
            length,
            max_new_tokens=25,
            eos=frozenset({5}) if seed else frozenset(),
            target=model,
            drafter=near(model, 100 + seed),
            drafter_prompt=ToyRequest.target_prompt,
            vocab_size=6,
            allowed_after=hashed(seed, 6),
        )
        done = toy.run(Randomness(0))
        assert done.tokens == toy.best()
        if proposer == "drafter" and length == 2 and len(done.tokens) == 25:
            assert done.recorder.accepted > 0


def test_a_draft_of_point_masses_is_cut_before_the_first_forbidden_token():
    constraint = ScriptedConstraint(lambda output: {len(output) % 3}, 3)
    assert allowed_prefix(constraint, (0, 1, 1)) == 2
    assert allowed_prefix(constraint, (1,)) == 0
    assert allowed_prefix(constraint, ()) == 0

    class Fixed(Oracle):
        def propose(self, max_tokens, rng):
            return Proposal((0, 1, 1, 0)[:max_tokens])

    toy = ToyRequest(TARGET_LAW, Fixed, 4, 6, allowed_after=lambda output: {len(output) % 3})
    done = toy.run(Randomness(0))
    assert done.tokens == (0, 1, 2, 0, 1, 2)
    assert done.recorder.drafted == done.recorder.accepted


# --- the law alone ------------------------------------------------------------

ALLOWED = torch.tensor([False, True, True, False])
Z = torch.tensor([4.0, 1.0, 0.0, 3.0])


def test_the_mask_comes_after_truncation():
    law = Law("target", temperature=1.0, top_k=3).form(Z, None, ALLOWED)
    assert law.tolist() == pytest.approx([0, 1, 0, 0])  # token 2 was cut before token 1 became the best


def test_nothing_left_by_truncation_falls_back_to_the_untruncated_law():
    law = Law("target", temperature=1.0, top_k=2).form(Z, None, ALLOWED)
    assert law.tolist() == pytest.approx([0, *torch.softmax(Z[1:3], 0).tolist(), 0])


@pytest.mark.parametrize("kind", ["target", "augmented"])
@pytest.mark.parametrize("temperature", [0.0, 1e-6, 1.0])
def test_nothing_left_at_all_falls_back_to_the_logits(kind, temperature):
    z = torch.tensor([1000.0, 1.0, 0.0, 3.0])
    drafter = None if kind == "target" else torch.tensor([900.0, 0.0, 0.0, 0.0])
    law = Law(kind, temperature=temperature).form(z, drafter, ALLOWED)
    expected = [0, 1, 0, 0] if temperature < 1 else [0, *torch.softmax(z[1:3], 0).tolist(), 0]
    assert law.tolist() == pytest.approx(expected)
    proposed = replace(Law(kind), temperature=temperature or 1.0).propose(z, ALLOWED)
    assert proposed.sum() == pytest.approx(1.0) and not proposed[~ALLOWED].any()


def test_a_mask_that_allows_everything_changes_nothing():
    every = torch.ones(4, dtype=torch.bool)
    for law in (Law("target"), Law("target", temperature=0.7, top_p=0.9), Law("augmented", temperature=1.0, top_k=2)):
        drafter = Z.flip(0) if law.needs_drafter else None
        assert torch.allclose(law.form(Z, drafter, every), law.form(Z, drafter))
