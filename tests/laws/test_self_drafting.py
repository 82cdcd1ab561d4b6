"""The output follows the law when the target drafts for itself, whatever rows and layers it leaves out."""

import pytest

from rapid_integrations.decoding.drafter import Drafter
from rapid_integrations.decoding.view_reader import ViewReader
from rapid_integrations.proposers.drafter import DrafterProposer
from rapid_integrations.proposers.layer_search import LayerSearch
from rapid_integrations.proposers.own_cache import base_of
from rapid_integrations.proposers.prompt_lookup import PromptLookup
from rapid_integrations.proposers.skipped_layers import SkippedLayers
from rapid_integrations.proposers.suite.table_model import SharedTableLM, TableLM
from rapid_integrations.proposers.triforce import TriForce
from rapid_integrations.sampling import Law
from tests.toys.constraint import hashed
from tests.toys.distributions import largest_difference
from tests.toys.enumerated_requests import SETTINGS, TOLERANCE, outcomes, request
from tests.toys.requests import ToyRequest

PROMPT = (0, 1, 0, 2, 1, 0, 0, 1)  # "0 1" occurs before its end


class Sparse(DrafterProposer):
    source = "sparse"


def view(asked):
    """The target over its first two rows and the last ones, which leaves out some of so short a text."""

    def rows(length):
        return [(0, 2), (length - 2, length)]

    return Drafter(ViewReader(asked.target, asked.target.model.part(), rows), asked.rules)


def sparse(asked):
    return Sparse(view(asked), asked.lengths.of_drafts())


def hierarchy(asked):
    cheap = asked.draft_lm or PromptLookup.from_request(asked)
    return TriForce(view(asked), cheap, asked.rules, asked.lengths.of_drafts(), asked.lengths.of_copies())


class Hasty(LayerSearch):
    TOKENS = 1


def skipping(asked):
    search = Hasty(6, lambda skipped: 1 - len(skipped) / 7)
    return SkippedLayers(base_of(asked), asked.rules, asked.lengths.of_drafts(), search)


def toy(kind, proposer, settings=None, **more):
    more = {"target_prompt": PROMPT, "draft_length": 2, "max_new_tokens": 3, **more}
    if settings is None:
        return ToyRequest(Law(kind, temperature=1.0, eta=5.0), proposer, **more)
    return request(kind, settings, proposer=proposer, **more)


def off(asked):
    return largest_difference(outcomes(asked), asked.expected())


MAKERS = pytest.mark.parametrize("proposer", [sparse, hierarchy, skipping])


@pytest.mark.pairs
@MAKERS
@pytest.mark.parametrize("kind", ["target", "augmented"])
@pytest.mark.parametrize("settings", SETTINGS[::3])
def test_the_output_follows_the_law(kind, proposer, settings):
    assert off(toy(kind, proposer, settings)) < TOLERANCE


@MAKERS
def test_the_output_follows_the_law_within_a_constraint(proposer):
    assert off(toy("augmented", proposer, allowed_after=hashed(3, 3))) < TOLERANCE


@pytest.mark.parametrize("tokens", [3, pytest.param(4, marks=pytest.mark.slow)])
def test_the_hierarchy_follows_the_law_with_a_small_model(tokens):
    for kind in ("target", "augmented"):
        asked = toy(kind, hierarchy, draft_lm=TableLM(7, 3), draft_length=tokens - 1, max_new_tokens=tokens)
        assert off(asked) < TOLERANCE


@MAKERS
def test_the_output_follows_the_law_if_the_target_is_the_drafter(proposer):
    model = TableLM(1, 3)
    assert off(toy("augmented", proposer, target=model, drafter=model)) < TOLERANCE


@MAKERS
@pytest.mark.once
@pytest.mark.parametrize("lm", [TableLM, SharedTableLM])
def test_greedy_answers_are_the_targets_own(lm, proposer):
    for seed in range(12):
        model = lm(seed, 3)
        law = Law("augmented", eta=5.0)
        asked = ToyRequest(law, proposer, 3, 12, target=model, drafter=model, target_prompt=PROMPT)
        assert list(outcomes(asked)) == [asked.best()]
