"""The law "lenient": it says that it is lossy, and how far it may go is what its setting says."""

import pytest
import torch

from rapid_integrations.sampling import Law
from tests.toys.distributions import largest_difference, total_variation
from tests.toys.enumerated_requests import TOLERANCE, outcomes
from tests.toys.requests import ToyRequest
from tests.toys.trees import Branching


def certain(text, siblings, rng):
    return (sum(text) + len(text) + len(siblings)) % 3, None


def lenient(leniency, temperature=1.0):
    return Law("lenient", temperature=temperature, leniency=leniency)


GUESSES = [("drafter", 2), ("prompt_lookup", 2), (lambda asked: Branching(certain, (-1, -1, 0, 1)), 2)]


@pytest.mark.parametrize(("proposer", "length"), GUESSES)
def test_the_output_no_longer_follows_the_target(proposer, length):
    toy = ToyRequest(lenient(0.1), proposer, length)
    assert total_variation(outcomes(toy), ToyRequest(Law("target", temperature=1.0)).expected()) > 0.01


def test_without_a_draft_it_is_the_target():
    toy = ToyRequest(lenient(0.5), "none")
    assert largest_difference(outcomes(toy), ToyRequest(Law("target", temperature=1.0)).expected()) < TOLERANCE


@pytest.mark.parametrize(("proposer", "length"), GUESSES)
def test_greedy_and_strict_it_is_the_target(proposer, length):
    toy = ToyRequest(lenient(1.0, 0.0), proposer, length)
    assert outcomes(toy) == {ToyRequest(Law("target")).best(): pytest.approx(1.0)}


@pytest.mark.parametrize(("proposer", "length"), GUESSES)
def test_greedy_each_token_is_nearly_as_likely_as_the_best(proposer, length):
    differs = False
    for leniency in (0.2, 0.6):
        toy = ToyRequest(lenient(leniency, 0.0), proposer, length, max_new_tokens=4)
        (answer,) = outcomes(toy)
        for position, token in enumerate(answer):
            p = torch.softmax(torch.tensor(toy.target.logits_after((*toy.target_prompt, *answer[:position]))), -1)
            assert p[token] >= leniency * p.max()
        differs |= answer != ToyRequest(Law("target"), max_new_tokens=4).best()
    assert differs


def test_what_the_constraint_forbids_never_stands():
    law, z = lenient(0.1), torch.tensor([2.0, 1.9, 0.0])
    assert law.tolerates(z, 1) and not law.tolerates(z, 1, torch.tensor([True, False, True]))
    assert not lenient(0.95).tolerates(z, 1) and lenient(0.95).tolerates(z, 0)
