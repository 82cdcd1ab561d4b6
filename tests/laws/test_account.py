"""The output follows the law where the account of drafts, which follows the text, decides whether there is a draft."""

import pytest

from rapid_integrations.decoding import account
from rapid_integrations.decoding.draft_length import AdaptiveDraftLength, CostModel
from rapid_integrations.decoding.drafter import Drafter
from rapid_integrations.decoding.view_reader import ViewReader
from rapid_integrations.proposers.drafter import DrafterProposer
from rapid_integrations.proposers.heads.eagle import Eagle3
from rapid_integrations.proposers.layer_search import LayerSearch
from rapid_integrations.proposers.own_cache import base_of
from rapid_integrations.proposers.prompt_lookup import PromptLookup
from rapid_integrations.proposers.skipped_layers import SkippedLayers
from rapid_integrations.proposers.suite import check_proposer
from rapid_integrations.proposers.triforce import TriForce
from rapid_integrations.sampling import Law
from tests.toys.distributions import largest_difference
from tests.toys.enumerated_requests import TOLERANCE, outcomes
from tests.toys.heads import head_for
from tests.toys.requests import ToyRequest

COSTS = CostModel(propose=0.2, score=0.0, verify=1.0, verify_per_token=0.1)
PROMPT = (0, 1, 0, 2, 1, 0, 0, 1)


@pytest.fixture(autouse=True)
def chosen(monkeypatch):
    """Let an account cover one wrong token, and no more; returns every length that is chosen."""
    monkeypatch.setattr(account, "FIRST", 0.35)
    monkeypatch.setattr(account, "FIRST_OF_A_WRITER", 0.35)
    monkeypatch.setattr(account, "PER_TOKEN", 0.1)
    monkeypatch.setattr(AdaptiveDraftLength, "FIRST_WAIT", 1)
    lengths, decide = [], AdaptiveDraftLength.next

    def recorded(self):
        lengths.append(decide(self))
        return lengths[-1]

    monkeypatch.setattr(AdaptiveDraftLength, "next", recorded)
    return lengths


@pytest.mark.parametrize("proposer", ["drafter", "draft_lm", "prompt_lookup", "hybrid", "tree_hybrid", "adaptive"])
def test_models_and_copies(proposer, chosen):
    check_proposer(proposer, draft_lengths=("auto",))
    assert len(set(chosen)) > 1  # the text decides how long drafts are


@pytest.mark.parametrize("proposer", ["draft_head", "draft_head_tree", "tree_hybrid"])
def test_heads(proposer, monkeypatch, chosen):
    check_proposer(proposer, draft_lengths=("auto",), draft_head=head_for(Eagle3))
    assert {0, 1} <= set(chosen)


def test_trees_of_copies():
    check_proposer("retrieval_tree", draft_lengths=("auto",))


def view(asked):
    part = asked.target.model.part()
    return Drafter(ViewReader(asked.target, part, lambda length: [(0, 2), (length - 2, length)]), asked.rules)


def length():
    return AdaptiveDraftLength(3, COSTS, measure=False)


def sparse(asked):
    return DrafterProposer(view(asked), length())


def hierarchy(asked):
    return TriForce(view(asked), PromptLookup.from_request(asked), asked.rules, length(), asked.lengths.of_copies())


class Hasty(LayerSearch):
    TOKENS = 1


def skipping(asked):
    return SkippedLayers(base_of(asked), asked.rules, length(), Hasty(6, lambda skipped: 1 - len(skipped) / 7))


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("kind", ["target", "augmented"])
@pytest.mark.parametrize("proposer", [sparse, hierarchy, skipping])
def test_the_target_drafts_for_itself(proposer, kind, chosen):
    asked = ToyRequest(
        Law(kind, temperature=1.0, eta=5.0), proposer, target_prompt=PROMPT, draft_length=3, max_new_tokens=4
    )
    assert largest_difference(outcomes(asked), asked.expected()) < TOLERANCE
    assert {0, 1} <= set(chosen)
