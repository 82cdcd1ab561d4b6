"""Accepting or rejecting draft tokens so that the output follows the law, whoever proposed them.

Pure: laws, proposal and randomness in, verdict out. The acceptance probability and the residual are functions of
their own, so that tests can enumerate outcomes exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from rapid_integrations.sampling.randomness import Randomness
from rapid_integrations.sampling.vectors import scaled, surplus, total

LawAt: TypeAlias = Callable[[int], Tensor]
"""The law (V,) at a position of the draft; formed only when asked for."""


@dataclass(frozen=True)
class Verdict:
    """What became of a draft.

    Attributes:
        accepted: how many of its first tokens stand.
        correction: the token that replaces the first rejected one; None when all were accepted.
    """

    accepted: int
    correction: int | None


def acceptance_probability(law: Tensor, token: int, proposed: Tensor | None) -> float:
    """Return min(1, law(x) / proposed(x)); for a point mass, law(x).

    Args:
        law: (V,).
        token: the draft token x.
        proposed: (V,) the distribution that x was drawn from, or None.
    """
    if proposed is None:
        return float(law[token])
    return min(1.0, float(law[token]) / float(proposed[token]))


def exact_residual(law: Tensor, token: int, proposed: Tensor | None) -> Tensor:
    """Return the distribution of the correction that makes the output follow `law`: norm(max(law - proposed, 0)).

    For a point mass this is the law without x. Where nothing remains (law and proposed agree up to rounding, so that
    the rejection itself was a rounding accident), it is the law.
    """
    if proposed is None:
        if not law[token]:
            return law
        rest = law.clone()
        rest[token] = 0.0
    else:
        rest = surplus(law, proposed)
    left = total(rest)
    return scaled(rest, 1.0 / left) if left > 0 else law


def paper_residual(p: Tensor, p_hat: Tensor, proposed: Tensor) -> Tensor:
    """Return Eq. 10 of arXiv 2502.20330: norm(max(p - p_hat, p - q, 0)).

    The output that it leads to follows neither p nor p_hat (docs/LOG.md); kept to compare with published results.
    Where nothing remains, it is p_hat.
    """
    rest = (p - p_hat).maximum(p - proposed).clamp(min=0.0)
    left = rest.sum()
    return rest / left if left > 0 else p_hat


def verify(
    token_ids: Sequence[int],
    proposed: Sequence[Tensor] | None,
    law_at: LawAt,
    rng: Randomness,
    residual_at: Callable[[int], Tensor] | None = None,
) -> Verdict:
    """Accept a prefix of the draft, and draw the correction where one token is rejected.

    Args:
        token_ids: K draft tokens.
        proposed: K times (V,), what they were drawn from, or None for point masses.
        law_at: the law at each position.
        rng: the request's randomness.
        residual_at: the correction's distribution at a position, in place of the exact one.
    """
    for position, token in enumerate(token_ids):
        law = law_at(position)
        drawn_from = None if proposed is None else proposed[position]
        if rng.accept(acceptance_probability(law, token, drawn_from)):
            continue
        rest = exact_residual(law, token, drawn_from) if residual_at is None else residual_at(position)
        return Verdict(position, rng.draw(rest))
    return Verdict(len(token_ids), None)
