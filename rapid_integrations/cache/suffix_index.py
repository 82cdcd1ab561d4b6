"""Finding the longest end of a text that occurs in an indexed text, within microseconds whatever the text's size.

The index is a suffix array of the reversed text. So the places behind which the same tokens lie are neighbours in it,
and they are sorted by those tokens from the last one on. Tokens are stored as four bytes each, the highest first. Bytes
are then ordered as tokens are, so a comparison is one of two slices, also of a file that is mapped into memory.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from mmap import mmap

import numpy as np
from numpy.typing import NDArray

LONGEST = 16
"""Tokens. Places are sorted by so many tokens before them, and longer matches count as this long."""
_BYTES = 4  # of a token


@dataclass(frozen=True)
class Match:
    """Where the end of a text occurs.

    Attributes:
        length: tokens that agree.
        begin, end: the places behind them are those from `begin` to `end` in the index.
    """

    length: int
    begin: int
    end: int


class SuffixIndex:
    """An indexed text. Make one with `build`, or on buffers that were stored.

    Args:
        reversed_tokens: the text from its last token to its first one, `_BYTES` each, big-endian.
        order: (places,) uint32, for each place how many tokens lie behind it, in the order described above.
        first: bytes before the tokens. Nothing may lie behind them.

    Attributes:
        size: number of tokens.
    """

    def __init__(self, reversed_tokens: bytes | mmap, order: memoryview, first: int = 0) -> None:
        self._tokens = reversed_tokens
        self._order = order
        self._first = first
        self.size = (len(reversed_tokens) - first) // _BYTES

    @classmethod
    def build(cls, token_ids: Sequence[int] | NDArray[np.int64]) -> SuffixIndex:
        """Return the index of a text. This sorts its places: a million tokens take about a second."""
        backwards = np.asarray(token_ids, dtype=np.int64)[::-1]
        order = _sorted_places(backwards)
        return cls(backwards.astype(">u4").tobytes(), order.astype(np.uint32).data)

    def buffers(self) -> tuple[bytes, memoryview]:
        """Return the tokens and the order, to be stored."""
        return self._tokens[self._first :], self._order

    def longest(self, tail: Sequence[int], least: int = 1) -> Match | None:
        """Return the longest end of `tail` that occurs with something behind it; None if it is shorter than `least`."""
        wanted = struct.pack(f">{min(len(tail), LONGEST)}I", *tail[: -LONGEST - 1 : -1])
        if not wanted or not len(self._order):
            return None
        at = bisect_left(self._order, wanted, key=lambda place: self._before(place, len(wanted)))
        length = max(
            _common(self._before(self._order[each], len(wanted)), wanted)
            for each in (at - 1, at)
            if 0 <= each < len(self._order)
        )
        return self._match(wanted[: length * _BYTES]) if length >= max(least, 1) else None

    def shorter(self, tail: Sequence[int], length: int) -> Match:
        """Return where the last `length` tokens of `tail` occur, which is known to be somewhere."""
        return self._match(struct.pack(f">{length}I", *tail[: -length - 1 : -1]))

    def behind(self, match: Match, most: int, length: int, limit: int | None = None) -> list[tuple[int, ...]]:
        """Return what follows a match: at most `most` of its places, each with at most `length` tokens.

        Args:
            match: from this index.
            most: places; if there are more, they are taken at equal distances.
            length: of each continuation.
            limit: places and tokens from this position of the text on do not exist; None: they all do.
        """
        found = []
        count = match.end - match.begin
        last = 0 if limit is None else max(0, self.size - limit)  # in the reversed text
        for number in range(min(count, most)):
            place = self._order[match.begin + number * count // min(count, most)]
            first = max(last, place - length)
            if first < place:
                tokens = self._tokens[self._first + first * _BYTES : self._first + place * _BYTES]
                found.append(struct.unpack(f">{place - first}I", tokens)[::-1])
        return found

    def _before(self, place: int, nbytes: int) -> bytes:
        begin = self._first + place * _BYTES
        return self._tokens[begin : begin + nbytes]

    def _match(self, wanted: bytes) -> Match:
        def before(place: int) -> bytes:
            return self._before(place, len(wanted))

        begin = bisect_left(self._order, wanted, key=before)
        return Match(len(wanted) // _BYTES, begin, bisect_right(self._order, wanted, lo=begin, key=before))


def _common(one: bytes, other: bytes) -> int:
    """Return how many tokens agree from the start."""
    agree = 0
    while one[agree : agree + _BYTES] == other[agree : agree + _BYTES] and agree < min(len(one), len(other)):
        agree += _BYTES
    return agree // _BYTES


def _sorted_places(backwards: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the places 1, ..., n - 1 of a reversed text (n,), sorted by the next `LONGEST` tokens there.

    The number of tokens that are compared doubles with each sort. Places that agree in all of them keep their order.
    """
    size = len(backwards)
    rank = backwards + 1  # 0 is behind the end
    order = np.argsort(rank, kind="stable")
    compared = 1
    while size and compared < LONGEST:
        behind = np.concatenate([rank[compared:], np.zeros(min(compared, size), dtype=np.int64)])[:size]
        key = rank * (int(rank.max()) + 1) + behind
        order = np.argsort(key, kind="stable")
        compared *= 2
        different = np.concatenate([[True], key[order[1:]] != key[order[:-1]]])
        rank = np.empty_like(rank)
        rank[order] = np.cumsum(different)
        if bool(different.all()):
            break
    return order[order > 0]
