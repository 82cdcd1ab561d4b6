"""Which rows of layers with a sliding window are kept: those that a further token, a rollback or another text may need.

A query sees `window` keys, its own included. So a text that goes on behind its first P tokens needs the rows from
P - window + 1 on, and no earlier ones. What is kept are the rows before each position where a text may go on:

- the last `BRANCHES` positions, of the text and of its prompt, where a draft is undone, or another question about the
  same document begins;
- positions where another text has gone on before;
- every so many tokens (`spacing`), for texts that share a part of a document. They are read again from there.

The others are freed. A text that begins with P tokens where rows are missing takes the longest beginning that has all
of its rows (`reusable`), and reads the rest once more. So no row ever depends on what was freed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

BRANCHES = 512
"""Tokens at the end of a text and of its prompt behind each of which another text may go on. Questions are shorter."""
LEAST_SPACING = 4096  # tokens
SPACING = 8  # windows: so an eighth of the rows is kept at most
STEP = 256  # tokens; rows are freed when there are so many
PIECE = 1024  # tokens of a prompt that a pass reads at most on a processor

Range: TypeAlias = "tuple[int, int]"  # positions (begin, end), or rows


def spacing(window: int) -> int:
    """Return after how many tokens the rows of a window are kept in any case."""
    return max(LEAST_SPACING, SPACING * window)


def most_held(tokens: int, window: int) -> int:
    """Return how many rows a windowed layer holds at most of a text of so many tokens, while it is read and after."""
    around = 2 * (window + BRANCHES) + STEP + PIECE  # before the text's end and before its prompt's
    return min(tokens, around + window * (tokens // spacing(window)))


def kept(window: int, length: int, prompt_end: int, points: Iterable[int]) -> list[Range]:
    """Return the ranges of positions whose rows a text of `length` tokens keeps, in no order.

    Args:
        window: keys that a query sees.
        length: of the text.
        prompt_end: length of its prompt.
        points: positions behind which other texts have gone on.
    """
    every = spacing(window)
    ends = [*points, *range(every, length + 1, every)]
    around = window + BRANCHES
    return [
        (length - around, length),
        (prompt_end - around, prompt_end),
        *((end - window, end) for end in ends),
    ]


def without(whole: Range, taken: Iterable[Range]) -> list[Range]:
    """Return what is left of a range without others, ascending."""
    left, (begin, end) = [], whole
    for first, last in sorted(taken):
        if last <= begin:
            continue
        if first >= end:
            break
        if first > begin:
            left.append((begin, first))
        begin = max(begin, last)
    if begin < end:
        left.append((begin, end))
    return left


def reusable(length: int, window: int, freed: Sequence[Range]) -> int:
    """Return the longest beginning of at most `length` tokens that a text can go on behind, given the freed rows."""
    for begin, end in sorted(freed, reverse=True):
        if begin < length < end + window:  # some of the rows before `length` are missing
            length = begin
    return length
