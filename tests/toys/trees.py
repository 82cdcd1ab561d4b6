"""Shapes of token trees, and ways to fill them with tokens."""

import itertools
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from rapid_integrations.decoding.proposal import Proposal, Proposer

Text = tuple[int, ...]
Draw = Callable[[Text, list[int], object], tuple[int, Tensor | None]]
"""From the text before a token, the siblings that were proposed before it, and randomness: a token and its row."""


def shapes(most: int, levels: int) -> Iterator[tuple[int, ...]]:
    """Yield the parents of every tree with at most so many tokens on each of at most so many levels."""

    def grow(parents: tuple[int, ...], last: Sequence[int], left: int) -> Iterator[tuple[int, ...]]:
        yield parents
        if left:
            for count in range(1, most + 1):
                for chosen in itertools.combinations_with_replacement(last, count):
                    first = len(parents)
                    yield from grow((*parents, *chosen), range(first, first + count), left - 1)

    for count in range(1, most + 1):
        yield from grow((-1,) * count, range(count), levels - 1)


def filled(parents: Sequence[int], draw: Draw, rng) -> tuple[list[int], list[Tensor | None]]:
    """Propose a token for each place of a tree, in the order of the places."""
    tokens: list[int] = []
    rows: list[Tensor | None] = []
    for place, parent in enumerate(parents):
        text, at = (), parent
        while at >= 0:
            text, at = (tokens[at], *text), parents[at]
        siblings = [tokens[other] for other in range(place) if parents[other] == parent]
        token, row = draw(text, siblings, rng)
        tokens.append(token)
        rows.append(row)
    return tokens, rows


def ranked(scores: Sequence[float]) -> list[int]:
    return sorted(range(len(scores)), key=lambda token: -scores[token])


def without_replacement(q: Tensor, siblings: list[int]) -> Tensor:
    """Return q (V,) given that it is none of the siblings."""
    left = q.clone()
    left[siblings] = 0.0
    return left / left.sum() if left.sum() > 0 else torch.full_like(q, 1 / len(q))


class Branching(Proposer):
    """Proposes a tree in each round, as far as its paths are not longer than what is wanted.

    Args:
        draw: what each place is filled with; the text is what was committed and what comes before the place.
        shapes: the parents of the places, one tree a round.
    """

    def __init__(self, draw: Draw, *shapes: tuple[int, ...]) -> None:
        self._draw, self._shapes = draw, itertools.cycle(shapes)
        self._text: Text = ()

    def propose(self, limit, rng) -> Proposal:
        depth: list[int] = []
        parents = []
        for parent in next(self._shapes):
            below = 1 if parent < 0 else depth[parent] + 1
            if below > limit:
                break  # places are given level by level
            depth.append(below)
            parents.append(parent)
        text = self._text
        tokens, rows = filled(parents, lambda before, siblings, rng: self._draw(text + before, siblings, rng), rng)
        return Proposal(tuple(tokens), rows, "branching", tuple(parents))

    def commit(self, token_ids) -> None:
        self._text += tuple(token_ids)
