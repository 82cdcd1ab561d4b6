"""The suite for other people's proposers passes what is right, and finds what is not."""

import pytest
import torch

from rapid_integrations.decoding.proposal import Proposal, Proposer
from rapid_integrations.proposers import PROPOSERS
from rapid_integrations.proposers.suite import check_proposer


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("name", sorted(set(PROPOSERS) - {"datastore", "draft_head", "draft_head_tree"}))
def test_our_own_proposers_pass(name):
    check_proposer(name, new_tokens=3, draft_lengths=(2,))


class Forgetful(Proposer):
    @classmethod
    def from_request(cls, request):
        return cls()

    def commit(self, token_ids):
        pass


class Discarding(Forgetful):
    """Draws again if it does not like what was drawn."""

    def propose(self, limit, rng):
        row = torch.tensor([0.5, 0.25, 0.25])
        token = rng.draw(row)
        return Proposal((token,), (row,)) if limit and token else Proposal(())


class Lying(Forgetful):
    def propose(self, limit, rng):
        if not limit:
            return Proposal(())
        row = torch.tensor([0.7, 0.2, 0.1])
        return Proposal((rng.draw(row),), (row.flip(0),))


class Certain(Forgetful):
    def propose(self, limit, rng):
        return Proposal((1, 2, 0)[: 3 * limit], parents=(-1, -1, -1)[: 3 * limit])


class Endless(Forgetful):
    def propose(self, limit, rng):
        return Proposal((1,) * 5)


class NoTokens(Forgetful):
    def propose(self, limit, rng):
        return Proposal((7,)[:limit])


class Unreported(Forgetful):
    def propose(self, limit, rng):
        return Proposal((1, 2)[:limit], [torch.tensor([0.0, 1.0, 0.0])])


def test_a_tree_of_every_token_passes():
    check_proposer(Certain, new_tokens=3)


@pytest.mark.parametrize(
    ("proposer", "message"),
    [
        (Discarding, "do not follow the law"),
        (Lying, "do not follow the law"),
        (Endless, "5 tokens in a row"),
        (NoTokens, "not all tokens"),
        (Unreported, "1 distributions were reported for 2"),
    ],
)
def test_what_is_wrong_is_found(proposer, message):
    with pytest.raises(AssertionError, match=message):
        check_proposer(proposer, new_tokens=3, draft_lengths=(1,))
