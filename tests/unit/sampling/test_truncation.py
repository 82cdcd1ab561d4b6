import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from rapid_integrations.sampling import truncate
from tests.unit.sampling.strategies import distributions


def warped(logits: torch.Tensor, top_k: int, top_p: float, min_p: float) -> torch.Tensor:
    """What transformers' generate makes of logits (V,), in its order."""
    scores, no_ids = logits[None], torch.empty(1, 0, dtype=torch.long)
    for warper in (
        TopKLogitsWarper(top_k) if top_k else None,
        TopPLogitsWarper(top_p) if top_p < 1.0 else None,
        MinPLogitsWarper(min_p) if min_p else None,
    ):
        scores = scores if warper is None else warper(no_ids, scores)
    return scores[0].softmax(-1)


@pytest.mark.parametrize("size", [5, 50, 3000])  # 3000: more than the nucleus looks at first
@pytest.mark.parametrize("top_k", [0, 1, 3, 40, 10_000])
def test_truncation_is_transformers(size, top_k):
    generator = torch.Generator().manual_seed(size + top_k)
    for top_p, min_p, scale in itertools.product((1.0, 0.95, 0.6, 0.05), (0.0, 0.05, 0.4), (0.3, 1.0, 4.0)):
        # Double precision on both sides: an edge of the nucleus must not hang on the order of a sum.
        logits = scale * torch.randn(size, generator=generator, dtype=torch.float64)
        kept = truncate(logits.softmax(-1), top_k=top_k, top_p=top_p, min_p=min_p)
        expected = warped(logits, top_k, top_p, min_p)
        assert torch.equal(kept > 0, expected > 0)
        assert torch.allclose(kept, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize(("top_p", "stays"), [(0.5, 1), (0.5001, 2), (0.75, 2), (0.7501, 3), (1e-9, 1)])
def test_the_nucleus_is_the_smallest_set_that_reaches_its_mass(top_p, stays):
    assert int((truncate(torch.tensor([0.125, 0.5, 0.125, 0.25]), top_p=top_p) > 0).sum()) == stays


def test_ties_with_the_kth_token_stay():
    assert truncate(torch.tensor([0.4, 0.2, 0.2, 0.2]), top_k=2).tolist() == pytest.approx([0.4, 0.2, 0.2, 0.2])


def test_min_p_is_closed_at_its_threshold():
    assert truncate(torch.tensor([0.5, 0.25, 0.125, 0.125]), min_p=0.5).tolist() == pytest.approx([2 / 3, 1 / 3, 0, 0])


def test_a_flat_nucleus_beyond_the_first_candidates_is_whole():
    flat = torch.full((4096,), 1 / 4096)
    assert int((truncate(flat, top_p=0.75) > 0).sum()) == 3072


@given(
    probs=distributions(8),
    top_k=st.integers(0, 9),
    top_p=st.floats(1e-3, 1.0),
    min_p=st.floats(0.0, 0.99),
)
def test_what_stays_keeps_its_ratios_and_the_best_always_stays(probs, top_k, top_p, min_p):
    given_probs = probs.clone()
    kept = truncate(probs, top_k=top_k, top_p=top_p, min_p=min_p)
    assert torch.equal(probs, given_probs)  # not written to
    assert float(kept.double().sum()) == pytest.approx(1.0, abs=1e-6)
    stays = kept > 0
    assert float(probs[stays].max()) == float(probs.max()) and float(probs[stays].min()) > 0
    ratio = kept[stays] / probs[stays]
    assert torch.allclose(ratio, ratio[:1].expand_as(ratio), rtol=1e-4, atol=0)
    if bool((~stays).any()):
        assert float(probs[~stays].max()) <= float(probs[stays].min())
