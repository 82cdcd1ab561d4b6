"""Judgements of short texts, made once: the next question about a document meets the same lines."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import TypeVar

_Judgement = TypeVar("_Judgement")

_SHORT = 1500  # characters; a longer text is judged anew, so that none is kept alive
_MOST = 4096  # texts whose judgement is kept, of each kind of judgement


def remembered(judge: Callable[[str], _Judgement]) -> Callable[[str], _Judgement]:
    """Return a pure `judge` that keeps what it said of the last short texts. Threads may share it."""
    kept = lru_cache(maxsize=_MOST)(judge)

    @wraps(judge)
    def judged(text: str) -> _Judgement:
        return kept(text) if len(text) <= _SHORT else judge(text)

    return judged
