"""Continuations that were found in texts, merged into a tree with the chance of each token."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

Weighted = tuple[tuple[int, ...], float]
"""A continuation and its weight."""


@dataclass(frozen=True)
class Candidate:
    """A token that may come.

    Attributes:
        token: the token.
        parent: the index of the candidate before it; -1 for the text so far.
        share: of the continuations behind its parent, by weight.
        chance: that it and everything before it is accepted.
    """

    token: int
    parent: int
    share: float
    chance: float


def merged(
    continuations: Sequence[Weighted],
    rate: Callable[[int], float],
    *,
    most: int,
    depth: int,
    last_tokens: Collection[int],
) -> list[Candidate]:
    """Return the likeliest tokens of the tree of all continuations, in descending order of their chances.

    The chance of a token is that of its parent, times the rate at which continuations go on, times its share.

    Args:
        continuations: tokens with weights.
        rate: of each depth (0 is the first token) the probability that one of the continuations is right there.
        most: tokens of the tree.
        depth: of its longest path.
        last_tokens: nothing follows these.
    """
    found: list[Candidate] = []
    number = 0  # ties are broken by what was met first
    waiting: list[tuple[float, int, int, int, float, int, list[Weighted]]] = []

    def look_behind(parent: int, chance: float, level: int, here: list[Weighted]) -> None:
        nonlocal number
        by_token: dict[int, list[Weighted]] = {}
        for each in here:
            if len(each[0]) > level:
                by_token.setdefault(each[0][level], []).append(each)
        total = sum(weight for each in by_token.values() for _, weight in each)
        for token, those in by_token.items():
            share = sum(weight for _, weight in those) / total
            number += 1
            heapq.heappush(waiting, (-chance * rate(level) * share, number, token, parent, share, level, those))

    if depth > 0:
        look_behind(-1, 1.0, 0, list(continuations))
    while waiting and len(found) < most:
        negative, _, token, parent, share, level, those = heapq.heappop(waiting)
        found.append(Candidate(token, parent, share, -negative))
        if level + 1 < depth and token not in last_tokens:
            look_behind(len(found) - 1, -negative, level + 1, those)
    return found


def depth_first(candidates: Sequence[Candidate]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return tokens and parents of a tree, each branch in one piece and the likelier one of two siblings first."""
    children: dict[int, list[int]] = {}
    for index, each in enumerate(candidates):
        children.setdefault(each.parent, []).append(index)
    order: list[int] = []
    stack = children.get(-1, [])[::-1]
    while stack:
        order.append(stack.pop())
        stack += children.get(order[-1], [])[::-1]
    place = {-1: -1} | {index: at for at, index in enumerate(order)}
    return (
        tuple(candidates[index].token for index in order),
        tuple(place[candidates[index].parent] for index in order),
    )


class Rates:
    """How often a continuation goes on as it did before, by the length of the match; learnt from every token.

    What was found is compared with the text that then came, proposed or not.
    """

    MEMORY = 0.98  # weight of the past, per token
    PRIOR_WEIGHT = 4.0  # tokens
    _BUCKETS = ((2, 0.3), (3, 0.45), (4, 0.55), (7, 0.7), (12, 0.8), (1 << 30, 0.9))  # longest match, first guess

    def __init__(self) -> None:
        self._right = [self.PRIOR_WEIGHT * guess for _, guess in self._BUCKETS]
        self._tried = [self.PRIOR_WEIGHT] * len(self._BUCKETS)

    def __call__(self, length: int) -> float:
        """Return the probability that one of the continuations of a match of so many tokens is right."""
        at = self._bucket(length)
        return min(self._right[at] / self._tried[at], 0.99)

    def learn(self, candidates: Sequence[Candidate], length: int, token_ids: Sequence[int]) -> None:
        """Compare what was found behind a match of `length` tokens with the text that then came."""
        parent = -1
        for depth, token in enumerate(token_ids):
            offered = {
                each.token: (index, each.share) for index, each in enumerate(candidates) if each.parent == parent
            }
            if not offered:
                return
            at = self._bucket(length + depth)
            self._right[at] = self.MEMORY * self._right[at] + (token in offered)
            self._tried[at] = self.MEMORY * self._tried[at] + min(1.0, sum(share for _, share in offered.values()))
            if token not in offered:
                return
            parent = offered[token][0]

    def _bucket(self, length: int) -> int:
        return next(index for index, (most, _) in enumerate(self._BUCKETS) if length <= most)
