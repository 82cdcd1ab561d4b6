"""p_hat: the target distribution, shifted towards what the drafter found in the retrieved text."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from rapid_integrations.sampling.adaptive_eta import ETA_MOST, adaptive_eta, sparse_eta
from rapid_integrations.sampling.vectors import at_least, best, scaled, total

_LEAST_SPARSE_ALPHA = 0.01  # from here on few tokens can move, and only those are looked at
_LEAST_WHOLE = 1e-12  # of p, to be scaled up to 1
_CLEAR = 1e-3  # of a margin in log p_hat, beyond all rounding


def augmented_target(
    p: Tensor,
    q: Tensor,
    *,
    eta: float | Literal["auto"],
    relevance: float = 1.0,
    tail_rule: Literal["mask", "restore"] = "mask",
    tail_alpha: float = 0.1,
    logits: Tensor | None = None,
) -> Tensor:
    """Form p_hat = softmax(log p + eta * (q - p)) with a tail rule.

    This is Eq. 6 of arXiv 2502.20330: log p differs from z / T by a constant, which softmax does not see.

    Args:
        p, q: (..., V) target and drafter distributions at the same temperature, untruncated.
        eta: >= 0; 0 gives p back. "auto" chooses it at each position: see `adaptive_eta`.
        relevance: in [0, 1], of what was retrieved; counts with eta "auto" only.
        tail_rule: "mask" moves only entries with q >= tail_alpha * max q (the released code). "restore" gives entries
            of p_hat under tail_alpha * max p_hat the target's own value back and renormalises (Eq. 9).
        tail_alpha: in [0, 1]; 0 switches the tail rule off.
        logits: (..., V) of which p is the softmax, for callers that have them: a large eta can lift tokens whose p has
            underflown to 0.

    Returns:
        (..., V), non-negative, summing to 1.
    """
    if tail_rule == "mask" and tail_alpha >= _LEAST_SPARSE_ALPHA and p.ndim == 1:
        return _few_moved(p, q, eta, relevance, tail_alpha, logits)
    log_p = p.log() if logits is None else torch.log_softmax(logits, dim=-1)  # log 0 = -inf stays 0
    direction = q - p
    if tail_rule == "mask":
        direction = direction * (q >= tail_alpha * q.amax(-1, keepdim=True))
    strength = adaptive_eta(p, q, direction, log_p, relevance=relevance).to(p.dtype) if eta == "auto" else eta
    p_hat = torch.softmax(log_p + strength * direction, dim=-1)
    if tail_rule == "restore":
        p_hat = torch.where(p_hat < tail_alpha * p_hat.amax(-1, keepdim=True), p, p_hat)
        p_hat = p_hat / p_hat.sum(-1, keepdim=True)
    return p_hat


def _few_moved(
    p: Tensor, q: Tensor, eta: float | Literal["auto"], relevance: float, tail_alpha: float, logits: Tensor | None
) -> Tensor:
    """Return p_hat (V,) where the tail rule lets few tokens move: the others keep their shares of what is left."""
    moved = at_least(q, tail_alpha * float(q[best(q)]))
    p_m, q_m = p[moved].double(), q[moved].double()
    log_p_m = p_m.log() if logits is None else logits[moved].double() - _log_total(p, logits)
    strength = sparse_eta(p, q, p_m, q_m, log_p_m, relevance=relevance) if eta == "auto" else eta
    raised = log_p_m + strength * (q_m - p_m)
    top = max(0.0, float(raised.max()))
    weights = (raised - top).exp()
    p_hat = p.clone()
    p_hat[moved] = 0.0
    whole = total(p_hat) * math.exp(-top) + float(weights.sum())
    if whole < _LEAST_WHOLE:  # what is left is of those whose p may have underflown
        log_p = p.log() if logits is None else torch.log_softmax(logits, dim=-1)
        return torch.softmax(log_p.index_copy(0, moved, raised.to(log_p.dtype)), dim=-1)
    p_hat = scaled(p_hat, math.exp(-top) / whole)
    p_hat[moved] = (weights / whole).to(p.dtype)
    return p_hat


def settled_token(
    p: Tensor,
    q: Tensor,
    logits: Tensor,
    *,
    eta: float | Literal["auto"],
    relevance: float = 1.0,
    tail_alpha: float = 0.1,
) -> int | None:
    """Return the best token of p_hat with the tail rule "mask", where that can be seen without forming p_hat.

    The target's best token stays the best of p_hat if it is ahead of every other at the largest strength in question:
    margins in log p_hat are linear in eta, and at 0 it is ahead. None says that p_hat has to be formed.

    Args:
        p, q, logits: (V,).
        eta, relevance, tail_alpha: see `augmented_target`.
    """
    if tail_alpha < _LEAST_SPARSE_ALPHA:
        return None
    most = relevance * ETA_MOST if eta == "auto" else eta
    first, its_token = best(logits), best(q)
    highest = float(q[its_token])
    # Where the best has so much that no other can reach the tail rule's share of it, it moves alone.
    alone = highest * (1 + tail_alpha) > 1 + 1e-6
    moved = [its_token] if alone else at_least(q, tail_alpha * highest).tolist()
    ahead, shifted = float(logits[first]) - _CLEAR, []
    for token in moved:
        shift = most * (float(q[token]) - float(p[token]))
        if token != first:
            shifted.append(float(logits[token]) + shift)
            continue
        ahead += shift
        # Behind those that do not move it can only fall if it loses ground itself.
        if shift < 0 and _second(logits, first) > ahead:
            return None
    return first if all(value <= ahead for value in shifted) else None


def _log_total(p: Tensor, logits: Tensor) -> float:
    """Return log sum exp of the logits (V,), from their softmax p."""
    first = best(p)
    return float(logits[first]) - math.log(float(p[first]))


def _second(values: Tensor, first: int) -> float:
    """Return the largest of (V,) but for the one at `first`."""
    others = values.clone()
    others[first] = -torch.inf
    return float(others.amax())
