"""Accepting or rejecting draft tokens so that the output follows the law, whoever proposed them.

Pure: laws, proposal and randomness in, verdict out. The acceptance probability and the residual are functions of
their own, so that tests can enumerate outcomes exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from rapid_integrations.sampling.ops import Ops
from rapid_integrations.sampling.randomness import Randomness
from rapid_integrations.sampling.torch_ops import REFERENCE

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


def acceptance_probability(law: Tensor, token: int, proposed: Tensor | None, before: float = 1.0) -> float:
    """Return min(1, before * law(x) / proposed(x)); for a point mass, before * law(x).

    Args:
        law: (V,).
        token: the draft token x.
        proposed: (V,) the distribution that x was drawn from, or None.
        before: what this gave for the draft before x, where the draft is verified as a block.
    """
    ratio = float(law[token]) if proposed is None else float(law[token]) / float(proposed[token])
    return min(1.0, before * ratio)


def paper_residual(p: Tensor, p_hat: Tensor, proposed: Tensor) -> Tensor:
    """Return Eq. 10 of arXiv 2502.20330: norm(max(p - p_hat, p - q, 0)).

    The output that it leads to follows neither p nor p_hat (docs/log/); kept to compare with published results.
    Where nothing remains, it is p_hat.
    """
    rest = (p - p_hat).maximum(p - proposed).clamp(min=0.0)
    left = rest.sum()
    return rest / left if left > 0 else p_hat


def verify(
    token_ids: Sequence[int],
    proposed: Sequence[Tensor | None] | None,
    law_at: LawAt,
    rng: Randomness,
    residual_at: Callable[[int], Tensor] | None = None,
    ops: Ops = REFERENCE,
    stands: Callable[[int], bool] | None = None,
) -> Verdict:
    """Accept a prefix of the draft, and draw the correction where a token is rejected.

    Args:
        token_ids: K draft tokens.
        proposed: K times (V,), what each was drawn from, or None for a point mass; None for point masses alone.
        law_at: the law at each position.
        rng: the request's randomness.
        residual_at: the correction's distribution at a position, in place of the exact one.
        ops: what computes the exact one.
        stands: of each draft token whether it is accepted without a trial. The output then does not follow the law.
    """
    if proposed is not None and residual_at is None and stands is None and all(each is not None for each in proposed):
        return _verify_block(token_ids, [each for each in proposed if each is not None], law_at, rng, ops)
    for position, token in enumerate(token_ids):
        law = law_at(position)
        drawn_from = None if proposed is None else proposed[position]
        if (stands is not None and stands(position)) or rng.accept(acceptance_probability(law, token, drawn_from)):
            continue
        return Verdict(
            position, rng.draw(rest(law, token, drawn_from, ops) if residual_at is None else residual_at(position))
        )
    return Verdict(len(token_ids), None)


def rest(law: Tensor, token: int, proposed: Tensor | None, ops: Ops) -> Tensor:
    """Return what is left of a law (V,) behind a rejected token; the law itself if rounding has left nothing.

    Args:
        law: (V,).
        token: the rejected token.
        proposed: (V,) the distribution that it was drawn from, or None.
        ops: what computes the residual.
    """
    if proposed is None:
        return ops.without(law, token)
    left, residual = ops.residual(law, 1.0, proposed)
    return residual if left > 0.0 else law


def _verify_block(
    token_ids: Sequence[int], proposed: Sequence[Tensor], law_at: LawAt, rng: Randomness, ops: Ops
) -> Verdict:
    """Algorithm 2 of arXiv 2403.10444: the longest prefix that can be accepted, looked for from the end.

    Where one token is less likely under the law than it was to be drafted, the tokens behind it can make up for that.
    No rule that keeps to the law accepts more tokens on average, and token by token never more than this. (For point
    masses both come to the same.)
    """
    accept = [1.0]  # the probability that so many tokens stand, or more
    for position, token in enumerate(token_ids):
        accept.append(acceptance_probability(law_at(position), token, proposed[position], accept[-1]))
        if not accept[-1]:
            break  # none of those behind it can stand
    for accepted in range(len(accept) - 1, -1, -1):
        probability = accept[accepted]
        if accepted == len(token_ids):
            if rng.accept(probability):
                return Verdict(accepted, None)
        elif probability:
            law = law_at(accepted)
            left, rest = ops.residual(law, probability, proposed[accepted])
            if rng.accept(left / (left + 1.0 - probability) if probability < 1.0 else 1.0):
                return Verdict(accepted, rng.draw(rest if left > 0.0 else law))
    raise AssertionError("an empty prefix is always accepted")
