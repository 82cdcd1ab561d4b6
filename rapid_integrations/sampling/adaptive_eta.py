"""eta = "auto" and "nearest": at each position as much transfer as it takes, or as can be trusted.

Eq. 6 of arXiv 2502.20330 is a gradient step of size eta on KL(q || p_hat). A fixed step is too short where p and q are
both sure, and overshoots where both are flat: there eta (q - p) outweighs log p, and p_hat prefers tokens that neither
of the two does. A line search finds the step that brings p_hat nearest to q: "nearest". Of that step "auto" takes the
share that p and q have in common: the drafter settles what the target leaves open. Where it contradicts a target that
is sure, it is heard as far as retrieval is to be trusted: it may have found something else (docs/results).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

ETA_MOST = 50.0
"""Where the line search ends: the strongest transfer that the paper tries."""

ETA_RULE = 3
"""Which rule "auto" and "nearest" follow: another number where it changes, so that results of both are not mixed."""

_SLOPE_LEFT = 0.01  # where the search ends; at 0 it would hang on rounding wherever q is nearly a point mass
_MOVED = 64  # tokens that the search sees one by one; those that would move less count as unmoved
_CLOSE = 1e-9  # of eta


def adaptive_eta(
    p: Tensor, q: Tensor, direction: Tensor, log_p: Tensor, *, relevance: float = 1.0, trust: float = 0.0
) -> Tensor:
    """Return eta at each position: relevance * (1 - (1 - trust) * TV(p, q)) * eta*.

    Along eta, KL(q || softmax(log p + eta * direction)) is convex. eta* in [0, `ETA_MOST`] is where its slope has
    fallen to a hundredth of that at 0: all but its minimum. TV is the total variation distance. All of it depends on
    the two distributions and on the retrieval only, so the law stays one and the same for every proposer and draft
    length.

    Args:
        p, q: (..., V) target and drafter distributions.
        direction: (..., V) q - p, with 0 where the tail rule lets nothing move.
        log_p: (..., V).
        relevance: in [0, 1], of what was retrieved; 0 gives p back.
        trust: in [0, 1], of what was retrieved where q contradicts p: the share of the step that TV cannot take
            away. 1 is "nearest".

    Returns:
        (..., 1), float64; on the processor if the device has no such numbers.
    """
    if p.device.type == "mps":  # Apple's GPUs have no double precision
        p, q, direction, log_p = (each.cpu() for each in (p, q, direction, log_p))
    moved = direction.abs().topk(min(_MOVED, direction.shape[-1]), dim=-1).indices
    parts = (each.gather(-1, moved).view(-1, moved.shape[-1]) for each in (p, q, direction, log_p))
    # A sum of its own: 1 less the others would be rounding and nothing else where a token that moves has nearly all.
    rest = p.scatter(-1, moved, 0.0).sum(-1, dtype=torch.float64).flatten()
    columns = (part.double().tolist() for part in (*parts, rest))
    found = [_line_search(*row) for row in zip(*columns, strict=True)]
    eta = torch.tensor(found, dtype=torch.float64, device=p.device).view(*p.shape[:-1], 1)
    in_common = torch.minimum(p, q).sum(-1, keepdim=True, dtype=torch.float64)  # 1 - TV(p, q)
    return relevance * (trust + (1.0 - trust) * in_common) * eta


def _line_search(
    p: Sequence[float], q: Sequence[float], d: Sequence[float], log_p: Sequence[float], rest: float
) -> float:
    """Return eta* from what the tokens are that move, and what p leaves for the `rest`; see `adaptive_eta`.

    Newton's steps on the slope of the divergence, which rises with eta, between bounds that close in. In double
    precision: differences of nearly equal distributions are what this is made of.
    """
    under_p, under_q = _dot(p, d), _dot(q, d)
    wanted = under_q + _SLOPE_LEFT * (under_p - under_q)

    def slope(eta: float) -> tuple[float, float]:
        """Return what the direction is worth under p_hat, less what is wanted; and its derivative, the variance."""
        raised = [log + eta * move for log, move in zip(log_p, d, strict=True)]
        top = max(0.0, *raised)
        weights = [math.exp(value - top) for value in raised]
        whole = math.fsum(weights) + rest * math.exp(-top)  # tokens that do not move share one weight
        mean = _dot(weights, d) / whole
        square = sum(weight * move * move for weight, move in zip(weights, d, strict=True)) / whole
        return mean - wanted, square - mean * mean

    low, high = 0.0, ETA_MOST
    if not slope(low)[0] < 0.0:
        return low
    if slope(high)[0] < 0.0:
        return high
    eta = low
    while high - low > _CLOSE:
        value, rise = slope(eta)
        low, high = (eta, high) if value < 0.0 else (low, eta)
        step = value / rise if rise > 0.0 else math.inf
        if abs(step) < _CLOSE:
            break
        eta = eta - step if low < eta - step < high else (low + high) / 2
    return eta


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))
