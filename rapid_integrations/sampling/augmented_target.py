"""p_hat: the target distribution, shifted towards what the drafter found in the retrieved text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from rapid_integrations.sampling.adaptive_eta import adaptive_eta

if TYPE_CHECKING:
    from rapid_integrations.config import Eta


def augmented_target(
    p: Tensor,
    q: Tensor,
    *,
    eta: Eta,
    relevance: float = 1.0,
    trust: float = 0.0,
    tail_rule: Literal["mask", "restore"] = "mask",
    tail_alpha: float = 0.1,
    logits: Tensor | None = None,
) -> Tensor:
    """Form p_hat = softmax(log p + eta * (q - p)) with a tail rule.

    This is Eq. 6 of arXiv 2502.20330: log p differs from z / T by a constant, which softmax does not see.

    Args:
        p, q: (..., V) target and drafter distributions at the same temperature, untruncated.
        eta: >= 0; 0 gives p back. "auto" and "nearest" choose it at each position: see `adaptive_eta`.
        relevance: in [0, 1], of what was retrieved; counts where eta is chosen.
        trust: in [0, 1], of what was retrieved where q contradicts p; counts for "auto".
        tail_rule: "mask" moves only entries with q >= tail_alpha * max q (the released code). "restore" gives entries
            of p_hat under tail_alpha * max p_hat the target's own value back and renormalises (Eq. 9).
        tail_alpha: in [0, 1]; 0 switches the tail rule off.
        logits: (..., V) of which p is the softmax, for callers that have them: a large eta can lift tokens whose p has
            underflown to 0.

    Returns:
        (..., V), non-negative, summing to 1.
    """
    log_p = p.log() if logits is None else torch.log_softmax(logits, dim=-1)  # log 0 = -inf stays 0
    direction = q - p
    if tail_rule == "mask":
        direction = direction * (q >= tail_alpha * q.amax(-1, keepdim=True))
    strength: float | Tensor
    if isinstance(eta, str):
        trust = 1.0 if eta == "nearest" else trust
        chosen = adaptive_eta(p, q, direction, log_p, relevance=relevance, trust=trust)
        strength = chosen.to(p.dtype).to(p.device)
    else:
        strength = eta
    p_hat = torch.softmax(log_p + strength * direction, dim=-1)
    if tail_rule == "restore":
        p_hat = torch.where(p_hat < tail_alpha * p_hat.amax(-1, keepdim=True), p, p_hat)
        p_hat = p_hat / p_hat.sum(-1, keepdim=True)
    return p_hat
