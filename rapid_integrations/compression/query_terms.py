"""Query term coverage: how much of what a question names stands in what was retrieved. Pure.

Similarity says that a passage is about such things; it says the same of a passage about another person's. Words say
which: where the document tells of "Nils Engel" and the retrieved passages do not, retrieval has missed.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import TypeAlias

_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # kana, Han
)
_MARKS = "\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0900-\u0dff\u1ab0-\u1aff"  # belong to the letter before
_CHARACTER = re.compile(f"[{_UNSPACED}]")
_WORD = re.compile(rf"[{_UNSPACED}]|(?:[^\W_{_UNSPACED}]|[{_MARKS}])+")
_GAP = re.compile(r"\n\s*\n")  # also where passages that do not follow one another were put together
_WINDOW = 64  # words that a term's frequency is counted by, every half a window
_STRIDE = _WINDOW // 2

Term: TypeAlias = tuple[str, ...]  # a word, or two that follow one another


def query_coverage(contexts: Sequence[str], kept: Sequence[str], query: str) -> float:
    """Return which share of the question's terms in `contexts` is in `kept`, too; in [0, 1].

    Terms are words and pairs of neighbouring words, whatever their case; of scripts without spaces, pairs of
    characters (as Lucene's CJK bigrams). Those that the document does not have, or spells otherwise, say nothing. The
    others count by the square of log(N / df), as terms of a tf-idf product do, where df of the document's N windows of
    64 words have the term: rare ones nearly alone, such as a name, and what stands everywhere not at all. A question
    that names less than one word that occurs once ("What is it about?") is covered in part at most.

    Args:
        contexts: what the target reads of the document.
        kept: what the drafter reads of it.
        query: the question.
    """
    wanted = {term for words in _paragraphs(query) for term in _terms(words)}
    frequency: dict[Term, int] = {}
    windows = 0
    for text in contexts:
        found, words = _found(text, wanted)
        windows += _windows(words) if words else 0
        for term, positions in found.items():
            frequency[term] = frequency.get(term, 0) + _windows_with(positions, words)
    weights = {term: math.log(windows / count) ** 2 for term, count in frequency.items()}
    if not any(weights.values()):
        return 0.0
    once = math.log(max(1.0, windows / 2)) ** 2  # windows overlap: what occurs once is in two
    covered = {term for text in kept for term in _found(text, wanted)[0]}
    return math.fsum(weights[term] for term in weights if term in covered) / max(once, math.fsum(weights.values()))


def trust_of(coverage: float) -> float:
    """Return how far to believe a drafter that contradicts the target, in [0, 1]; see `sampling.adaptive_eta`.

    0 where half of what the question names has been found, or less, and 1 where all of it has.
    """
    return min(1.0, max(0.0, 2 * coverage - 1.0))


def _paragraphs(text: str) -> Iterator[list[str]]:
    """Yield the words of each paragraph, which no pair reaches across."""
    for part in _GAP.split(unicodedata.normalize("NFKC", text).casefold()):
        yield _WORD.findall(part)


def _terms(words: Sequence[str]) -> set[Term]:
    return {(word,) for word in words if not _CHARACTER.match(word)} | set(zip(words, words[1:], strict=False))


def _found(text: str, wanted: Set[Term]) -> tuple[Mapping[Term, list[int]], int]:
    """Return where each of the `wanted` terms that are there begins, ascending, and how many words the text has."""
    singles = {word for term in wanted for word in term}
    found: dict[Term, list[int]] = {}
    before = 0
    for words in _paragraphs(text):
        for place, word in enumerate(words):
            if word in singles:  # few are
                for term in {(word,), tuple(words[place : place + 2])} & wanted:
                    found.setdefault(term, []).append(before + place)
        before += len(words)
    return found, before


def _windows(words: int) -> int:
    """Return how many windows, one every half, it takes to see all of a text."""
    return max(1, math.ceil((words - _STRIDE) / _STRIDE))


def _windows_with(positions: Sequence[int], words: int) -> int:
    """Return in how many windows of a text of so many words something begins at one of `positions`."""
    last = _windows(words) - 1
    halves = {position // _STRIDE for position in positions}
    return len({min(max(0, window), last) for half in halves for window in (half - 1, half)})
