"""p_hat: the target distribution, shifted towards what the drafter found in the retrieved text."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rapid_integrations.sampling.adaptive_eta import ETA_MOST, adaptive_eta, sparse_eta
from rapid_integrations.sampling.vectors import places

_LEAST_SPARSE_ALPHA = 0.01  # from here on few tokens can move, and only those are looked at
_CLEAR = 1e-3  # of a margin in log p_hat, beyond all rounding


def augmented_target(
    p: Tensor,
    q: Tensor,
    *,
    eta: float | Literal["auto"],
    relevance: float = 1.0,
    tail_rule: Literal["mask", "restore"] = "mask",
    tail_alpha: float = 0.1,
    log_p: Tensor | None = None,
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
        log_p: (..., V) log p, for callers that have it: a large eta can lift tokens whose p has underflown to 0.

    Returns:
        (..., V), non-negative, summing to 1.
    """
    log_p = p.log() if log_p is None else log_p  # log 0 = -inf stays 0
    if tail_rule == "mask" and tail_alpha >= _LEAST_SPARSE_ALPHA and p.ndim == 1:
        moved = places(q >= tail_alpha * q.max())  # few: they have a share of the best one's probability
        strength = sparse_eta(p, q, moved, log_p, relevance=relevance).to(p.dtype) if eta == "auto" else eta
        return torch.softmax(log_p.index_add(0, moved, strength * (q[moved] - p[moved])), dim=-1)
    direction = q - p
    if tail_rule == "mask":
        direction = direction * (q >= tail_alpha * q.amax(-1, keepdim=True))
    strength = adaptive_eta(p, q, direction, log_p, relevance=relevance).to(p.dtype) if eta == "auto" else eta
    p_hat = torch.softmax(log_p + strength * direction, dim=-1)
    if tail_rule == "restore":
        p_hat = torch.where(p_hat < tail_alpha * p_hat.amax(-1, keepdim=True), p, p_hat)
        p_hat = p_hat / p_hat.sum(-1, keepdim=True)
    return p_hat


def settled_token(
    log_p: Tensor, q: Tensor, *, eta: float | Literal["auto"], relevance: float = 1.0, tail_alpha: float = 0.1
) -> int | None:
    """Return the best token of p_hat with the tail rule "mask", where that can be seen without forming p_hat.

    The target's best token stays the best of p_hat if it is ahead of every other at the largest strength in question:
    margins in log p_hat are linear in eta, and at 0 it is ahead. None says that p_hat has to be formed.

    Args:
        log_p, q: (V,).
        eta, relevance, tail_alpha: see `augmented_target`.
    """
    if tail_alpha < _LEAST_SPARSE_ALPHA:
        return None
    most = relevance * ETA_MOST if eta == "auto" else eta
    best = int(log_p.argmax())
    highest, its_token = q.max(0)
    # Where the best has so much that no other can reach the tail rule's share of it, it moves alone.
    alone = float(highest) * (1 + tail_alpha) > 1 + 1e-6
    moved = its_token[None] if alone else places(q >= tail_alpha * highest)
    log_p_d = log_p[moved]
    shift = most * (q[moved] - log_p_d.exp())
    own = moved == best
    ahead = log_p[best] + shift[own].sum() - _CLEAR
    if bool(((log_p_d + shift)[~own] > ahead).any()):
        return None
    # Behind those that do not move it can only fall if it loses ground itself.
    if bool((shift[own] < 0).any()) and bool(log_p.topk(2).values[1] > ahead):
        return None
    return best
