"""A text that grows token by token, searched like a `SuffixIndex`. It suits answers, which are short."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from rapid_integrations.cache.suffix_index import LONGEST

_PAIR = 2  # tokens that a match has at least
_NEWEST = 32  # places remembered behind one pair of tokens


class GrowingText:
    """Tokens with the places behind every pair of them.

    Args:
        token_ids: the first ones.
    """

    def __init__(self, token_ids: Iterable[int] = ()) -> None:
        self._tokens: list[int] = []
        self._behind: dict[tuple[int, int], deque[int]] = {}
        self.extend(token_ids)

    def __len__(self) -> int:
        return len(self._tokens)

    def extend(self, token_ids: Iterable[int]) -> None:
        """Append tokens."""
        for token in token_ids:
            self._tokens.append(token)
            if len(self._tokens) >= _PAIR:
                pair = self._tokens[-2], token
                self._behind.setdefault(pair, deque(maxlen=_NEWEST)).append(len(self._tokens))

    def matches(self, tail: Sequence[int]) -> list[tuple[int, int]]:
        """Return (length, place) for the newest places behind the last two tokens of `tail`, the longest match first.

        A place at the end of the text, which nothing follows, is left out.
        """
        if len(tail) < _PAIR:
            return []
        found = []
        for place in reversed(self._behind.get((tail[-2], tail[-1]), ())):
            if place < len(self._tokens):
                length, most = _PAIR, min(len(tail), place, LONGEST)
                while length < most and self._tokens[place - length - 1] == tail[-length - 1]:
                    length += 1
                found.append((length, place))
        return sorted(found, key=lambda each: -each[0])

    def after(self, place: int, length: int) -> tuple[int, ...]:
        """Return at most `length` tokens from a place on."""
        return tuple(self._tokens[place : place + length])
