"""What is left of a law without its improbable tokens."""

from __future__ import annotations

import torch
from torch import Tensor

_NUCLEUS_CANDIDATES = 1024  # top-p rarely needs more of a vocabulary sorted than this


def truncate(probs: Tensor, *, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0) -> Tensor:
    """Drop improbable tokens, in the order top-k, top-p, min-p, and renormalise. The best token always stays.

    The edges are transformers': top-k keeps ties with the k-th token; top-p keeps the smallest set of best tokens
    whose probability reaches `top_p`; min-p drops what is under `min_p` times the best.

    Args:
        probs: (V,), summing to 1.
        top_k: 0 is off.
        top_p: 1 is off.
        min_p: 0 is off.

    Returns:
        (V,), summing to 1.
    """
    kept = probs
    if 0 < top_k < probs.shape[-1]:
        kept = kept.where(kept >= kept.topk(top_k).values[-1], kept.new_zeros(()))
        kept = kept / kept.sum()
    if top_p < 1.0:
        kept = _nucleus(kept, top_p)
        kept = kept / kept.sum()
    if min_p > 0.0:
        kept = kept.where(kept >= min_p * kept.max(), kept.new_zeros(()))
        kept = kept / kept.sum()
    return kept


def _nucleus(probs: Tensor, top_p: float) -> Tensor:
    values, order = probs.topk(min(_NUCLEUS_CANDIDATES, probs.shape[-1]))
    if values.sum() < top_p:
        values, order = probs.sort(descending=True)
    # A token stays while the mass of the better ones is under top_p; so the first always does.
    better = values.cumsum(-1) - values
    stays = better < top_p
    return torch.zeros_like(probs).scatter(-1, order[stays], values[stays])
