"""Trees of draft tokens: which token follows which, and the verification that keeps to the law.

A tree offers several continuations at once. A token's parent is the token that it follows, given as an index; -1 is the
text so far. Parents come before their children. Siblings are tried in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from rapid_integrations.sampling.ops import Ops
from rapid_integrations.sampling.randomness import Randomness
from rapid_integrations.sampling.torch_ops import REFERENCE
from rapid_integrations.sampling.verification import LawAt, acceptance_probability, rest

ROOT = -1
"""The parent of a token that follows the text so far."""


@dataclass(frozen=True)
class TreeVerdict:
    """What became of a tree.

    Attributes:
        path: the indices of the tokens that stand, each the parent of the next.
        correction: the token that follows them in place of all those that were proposed there; None if none was.
    """

    path: tuple[int, ...]
    correction: int | None


def path_to(parents: Sequence[int], token: int) -> list[int]:
    """Return the indices of a token's ancestors and, as the last one, its own. That of `ROOT` is empty."""
    path = []
    while token != ROOT:
        path.append(token)
        token = parents[token]
    return path[::-1]


def children_of(parents: Sequence[int], token: int) -> list[int]:
    """Return the indices of the tokens that follow a token, in their order."""
    return [child for child in range(token + 1, len(parents)) if parents[child] == token]


def first_chain(parents: Sequence[int]) -> list[int]:
    """Return the indices of the tokens that are reached if each time the first child is taken."""
    chain, token = [], ROOT
    while below := children_of(parents, token):
        token = below[0]
        chain.append(token)
    return chain


def without(parents: Sequence[int], dropped: Callable[[int], bool]) -> list[int]:
    """Return the indices of the tokens that are left if some are dropped, each with everything below it.

    Args:
        parents: of all tokens.
        dropped: is asked about each token whose ancestors are left.
    """
    left: list[int] = []
    kept = {ROOT}
    for token, parent in enumerate(parents):
        if parent in kept and not dropped(token):
            kept.add(token)
            left.append(token)
    return left


def renumbered(parents: Sequence[int], left: Sequence[int]) -> tuple[int, ...]:
    """Return the parents of those tokens that are left, as indices among them."""
    new = {ROOT: ROOT} | {old: index for index, old in enumerate(left)}
    return tuple(new[parents[token]] for token in left)


def verify_tree(
    token_ids: Sequence[int],
    parents: Sequence[int],
    proposed: Sequence[Tensor | None] | None,
    law_at: LawAt,
    rng: Randomness,
    ops: Ops = REFERENCE,
    stands: Callable[[int], bool] | None = None,
) -> TreeVerdict:
    """Go down the tree, and draw the correction where every continuation is rejected.

    At each token the siblings are tried in order. The first one is accepted as a chain's token is. After a rejection,
    the next one is tried against what is left of the law (the residual), and the correction is drawn from what is left
    behind the last one. So the output follows the law, if each token was drawn from what `proposed` reports, given the
    siblings before it (recursive rejection sampling; arXiv 2305.09781, 2402.14160).

    Args:
        token_ids: K draft tokens.
        parents: of each the index of the token that it follows, smaller than its own; `ROOT` for the first ones.
        proposed: K times (V,), what each token was drawn from, or None for a point mass; None for point masses alone.
        law_at: the law behind each token: 0 is the text so far, and index + 1 a draft token.
        rng: the request's randomness.
        ops: what computes residuals.
        stands: see `verify`.
    """
    path: list[int] = []
    token = ROOT
    while below := children_of(parents, token):
        law = law_at(token + 1)
        for child in below:
            drawn_from = None if proposed is None else proposed[child]
            likely = acceptance_probability(law, token_ids[child], drawn_from)
            if (stands is not None and stands(child)) or rng.accept(likely):
                path.append(child)
                token = child
                break
            law = rest(law, token_ids[child], drawn_from, ops)
        else:
            return TreeVerdict(tuple(path), rng.draw(law))
    return TreeVerdict(tuple(path), None)
