"""Query term coverage: how much of what a question names stands in what was retrieved. Pure.

Similarity says that a passage is about such things; it says the same of a passage about another person's. Words say
which: where the document tells of "Nils Engel" and the retrieved passages do not, retrieval has missed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import TypeAlias

_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # kana, Han
)
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_CHARACTER = re.compile(f"[{_UNSPACED}]")
_WINDOW = 64  # words that a term's frequency is counted by, every half a window
_STRIDE = _WINDOW // 2

Term: TypeAlias = tuple[str, ...]  # a word, or two that follow one another


def query_coverage(contexts: Sequence[str], kept: Sequence[str], query: str) -> float:
    """Return which share of the question's terms in `contexts` is in `kept`, too; in [0, 1].

    Terms are words and pairs of neighbouring words, whatever their case; of scripts without spaces, pairs of
    characters (as Lucene's CJK bigrams). Those that the document does not have say
    nothing. The others count by the square of log(N / df), as terms of a tf-idf product do, where df of the document's
    N windows of 64 words have the term: rare ones nearly alone, such as a name, and what stands everywhere not at all.
    0 where no term tells anything.

    Args:
        contexts: what the target reads of the document.
        kept: what the drafter reads of it.
        query: the question.
    """
    wanted = _terms(_words(query))
    frequency: dict[Term, int] = {}
    windows = 0
    for text in contexts:
        words = _words(text)
        windows += _windows(len(words))
        for term, positions in _found(words, wanted).items():
            frequency[term] = frequency.get(term, 0) + _windows_with(positions, len(words))
    weights = {term: math.log(windows / count) ** 2 for term, count in frequency.items()}
    whole = math.fsum(weights.values())
    if not whole:
        return 0.0
    covered: set[Term] = set()
    for text in kept:
        covered |= _found(_words(text), wanted).keys()
    return math.fsum(weight for term, weight in weights.items() if term in covered) / whole


def trust_of(coverage: float) -> float:
    """Return how far to believe a drafter that contradicts the target, in [0, 1]; see `sampling.adaptive_eta`.

    0 where half of what the question names has been found, or less, and 1 where all of it has.
    """
    return min(1.0, max(0.0, 2 * coverage - 1.0))


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _terms(words: Sequence[str]) -> set[Term]:
    return {(word,) for word in words if not _CHARACTER.match(word)} | set(zip(words, words[1:], strict=False))


def _found(words: Sequence[str], wanted: Set[Term]) -> Mapping[Term, list[int]]:
    """Return where each of the `wanted` terms that are there begins in `words`, ascending."""
    singles = {word for term in wanted for word in term}
    found: dict[Term, list[int]] = {}
    for position, word in enumerate(words):
        if word in singles:  # few are
            for term in ((word,), tuple(words[position : position + 2])):
                if term in wanted:
                    found.setdefault(term, []).append(position)
    return found


def _windows(words: int) -> int:
    """Return how many windows, one every half, it takes to see all of a text."""
    return max(1, math.ceil((words - _STRIDE) / _STRIDE))


def _windows_with(positions: Sequence[int], words: int) -> int:
    """Return in how many windows of a text of so many words something begins at one of `positions`."""

    def windows() -> Iterator[int]:
        last = _windows(words) - 1
        for position in positions:
            half = position // _STRIDE
            yield min(half, last)
            yield min(max(0, half - 1), last)

    return len(set(windows()))
