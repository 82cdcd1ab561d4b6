"""Shapes of token trees, and ways to fill them with tokens."""

import itertools
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

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
