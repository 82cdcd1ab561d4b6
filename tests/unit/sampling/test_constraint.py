"""The mask on a law, and where a copied draft is cut; tests/laws/test_constrained_law.py has the whole loop."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rapid_integrations.sampling import Law, allowed_prefix
from rapid_integrations.sampling.constraint import mask
from tests.toys.constraint import ScriptedConstraint, hashed

V = 5


@given(st.integers(0, 1000), st.lists(st.integers(0, V - 1), max_size=6))
def test_a_draft_is_cut_before_its_first_forbidden_token(seed, draft):
    rule = hashed(seed, V)
    length = allowed_prefix(ScriptedConstraint(rule, V), draft)
    assert all(draft[at] in rule(tuple(draft[:at])) for at in range(length))
    assert length == len(draft) or draft[length] not in rule(tuple(draft[:length]))


def test_no_mask_changes_nothing():
    logits = torch.randn(V)
    assert mask(logits, None) is logits


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_what_is_left_of_the_truncated_law_is_scaled_up(temperature):
    law = Law(kind="target", temperature=temperature, top_k=3)
    z = torch.tensor([3.0, 2.0, 1.0, 0.0, -1.0])
    formed = law.form(z, None, torch.tensor([False, True, True, True, False]))
    kept = torch.softmax(z / temperature, -1) * torch.tensor([0, 1.0, 1.0, 0, 0])  # the fourth is truncated
    torch.testing.assert_close(formed, kept / kept.sum())


def test_where_truncation_leaves_nothing_allowed_the_whole_law_counts():
    law = Law(kind="target", temperature=1.0, top_k=1)
    z = torch.tensor([3.0, 2.0, 1.0, 0.0, -1.0])
    allowed = torch.tensor([False, False, True, True, False])
    kept = torch.softmax(z, -1) * allowed
    torch.testing.assert_close(law.form(z, None, allowed), kept / kept.sum())


def test_where_the_allowed_mass_underflows_the_logits_decide():
    z = torch.tensor([500.0, 0.0, -1.0, 0.0, 0.0])
    allowed = torch.tensor([False, True, True, False, False])
    formed = Law(kind="target", temperature=1.0).form(z, None, allowed)
    torch.testing.assert_close(formed, torch.softmax(z.masked_fill(~allowed, -torch.inf), -1))
    assert formed[1] > formed[2] > 0
