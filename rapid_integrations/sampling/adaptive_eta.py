"""eta = "auto": at each position as much transfer as p and q agree to.

Eq. 6 of arXiv 2502.20330 is a gradient step of size eta on KL(q || p_hat). A fixed step is too short where p and q are
both sure, and overshoots where both are flat: there eta (q - p) outweighs log p, and p_hat prefers tokens that neither
of the two does. A line search finds the step that brings p_hat nearest to q; of that step the share is taken that p
and q have in common. So the drafter settles what the target leaves open, and is not heard where it contradicts
a target that is sure: what was retrieved may be about something else (docs/results).
"""

from __future__ import annotations

import torch
from torch import Tensor

ETA_MOST = 50.0
"""Where the line search ends: the strongest transfer that the paper tries."""

_SLOPE_LEFT = 0.01  # where the search ends; at 0 it would hang on rounding wherever q is nearly a point mass
_MOVED = 64  # tokens that the search sees one by one; those that would move less count as unmoved
_POINTS, _ROUNDS = 128, 4  # the search cuts [0, ETA_MOST] into so many parts, so often: to 2e-7


def adaptive_eta(p: Tensor, q: Tensor, direction: Tensor, log_p: Tensor, *, relevance: float = 1.0) -> Tensor:
    """Return eta at each position: relevance * (1 - TV(p, q)) * eta*.

    Along eta, KL(q || softmax(log p + eta * direction)) is convex. eta* in [0, `ETA_MOST`] is where its slope has
    fallen to a hundredth of that at 0: all but its minimum. TV is the total variation distance. All of it depends on
    the two distributions and on the retrieval only, so the law stays one and the same for every proposer and draft
    length.

    Args:
        p, q: (..., V) target and drafter distributions.
        direction: (..., V) q - p, with 0 where the tail rule lets nothing move.
        log_p: (..., V).
        relevance: in [0, 1], of what was retrieved; 0 gives p back.

    Returns:
        (..., 1), float64.
    """
    moved = direction.abs().topk(min(_MOVED, direction.shape[-1]), dim=-1).indices
    return relevance * _common(p, q) * _line_search(*(each.gather(-1, moved) for each in (p, q, direction, log_p)))


def sparse_eta(p: Tensor, q: Tensor, moved: Tensor, log_p: Tensor, *, relevance: float = 1.0) -> Tensor:
    """Return `adaptive_eta` at one position of which few tokens move.

    Args:
        p, q, log_p: (V,).
        moved: (M,) the tokens that move; the others' direction is 0.
        relevance: in [0, 1].

    Returns:
        (1,), float64.
    """
    p_d, q_d, log_p_d = p[moved], q[moved], log_p[moved]
    d = q_d - p_d
    if len(moved) > _MOVED:
        most = d.abs().topk(_MOVED).indices
        p_d, q_d, d, log_p_d = p_d[most], q_d[most], d[most], log_p_d[most]
    return relevance * _common(p, q) * _line_search(p_d, q_d, d, log_p_d)


def _common(p: Tensor, q: Tensor) -> Tensor:
    return torch.minimum(p, q).sum(-1, keepdim=True, dtype=torch.float64)  # 1 - TV(p, q)


def _line_search(p: Tensor, q: Tensor, d: Tensor, log_p: Tensor) -> Tensor:
    """Return eta*, (..., 1), from what the tokens (..., M) are that move; see `adaptive_eta`."""
    # In float64: differences of nearly equal distributions are what this is made of.
    d, log_p_d, p_d, q_d = (each.double() for each in (d, log_p, p, q))
    # Tokens that do not move share one weight, e^0 times what p leaves for them.
    rest = (1.0 - p_d.sum(-1, keepdim=True)).clamp(min=0.0)
    # The slope is what the direction is worth under p_hat, less what it is worth under q.
    under_p, under_q = ((each * d).sum(-1, keepdim=True) for each in (p_d, q_d))
    wanted = under_q + _SLOPE_LEFT * (under_p - under_q)
    d, log_p_d = torch.cat([d, torch.zeros_like(rest)], dim=-1), torch.cat([log_p_d, rest.log()], dim=-1)
    eta, part = torch.zeros_like(wanted), ETA_MOST / _POINTS
    steps = torch.arange(1, _POINTS + 1, dtype=d.dtype, device=d.device)
    for _ in range(_ROUNDS):
        tried = eta + part * steps  # (..., points)
        weights = torch.softmax(log_p_d.unsqueeze(-2) + tried.unsqueeze(-1) * d.unsqueeze(-2), dim=-1)
        steep = (weights * d.unsqueeze(-2)).sum(-1) < wanted  # the slope rises with eta: True, then False
        eta = eta + part * steep.sum(-1, keepdim=True)
        part /= _POINTS
    return eta.clamp(max=ETA_MOST)
