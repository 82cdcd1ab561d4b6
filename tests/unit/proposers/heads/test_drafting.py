"""The output follows the law with heads that draw chains or propose trees."""

import pytest

from rapid_integrations.proposers.heads.eagle import Eagle, Eagle3
from rapid_integrations.proposers.suite import check_proposer
from tests.toys.heads import head_for


@pytest.mark.parametrize("proposer", ["draft_head", "draft_head_tree", "hybrid"])
def test_an_eagle3_head_keeps_the_law(proposer):
    check_proposer(proposer, new_tokens=3, draft_lengths=(2,), draft_head=head_for(Eagle3))


@pytest.mark.parametrize("proposer", ["draft_head", "draft_head_tree"])
def test_so_does_one_that_has_not_all_tokens(proposer):
    check_proposer(proposer, new_tokens=3, draft_lengths=(2,), draft_head=head_for(Eagle3, own=2))


@pytest.mark.parametrize("proposer", ["draft_head", "draft_head_tree"])
def test_so_does_an_eagle1_head(proposer):
    check_proposer(proposer, new_tokens=3, draft_lengths=(3,), draft_head=head_for(Eagle))
