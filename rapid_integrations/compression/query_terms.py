"""Query term coverage: the share of the question's terms that the retrieved passages hold. Pure.

Similarity shows that a passage is about the same topic, but not that it is about the same person. Words show that: if
the document mentions "Nils Engel" and the retrieved passages do not, retrieval has missed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import TypeAlias

from rapid_integrations.compression.words import UNSPACED_CHARACTER, words_of

_GAP = re.compile(r"\n\s*\n")  # this also separates passages that were joined across a gap
_WINDOW = 64  # words in a window for counting a term's frequency; windows start every half a window
_STRIDE = _WINDOW // 2

Term: TypeAlias = tuple[str, ...]  # a word, or two adjacent words


def query_coverage(contexts: Sequence[str], kept: Sequence[str], query: str) -> float:
    """Return the share of the question's terms in `contexts` that is also in `kept`, in [0, 1].

    Terms are words and pairs of neighbouring words, without regard to case. In scripts without spaces they are pairs of
    characters (as Lucene's CJK bigrams). A term that the document does not have, or spells otherwise, is ignored. The
    others have the weight log(N / df) squared, as in a tf-idf product, where df of the document's N windows of 64 words
    have the term. So a rare term such as a name has nearly all the weight, and a term that occurs everywhere has none.
    A question that names less than one word that occurs once ("What is it about?") has a coverage below 1.

    Args:
        contexts: the part of the document that the target reads.
        kept: the part that the drafter reads.
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
    once = math.log(max(1.0, windows / 2)) ** 2  # windows overlap, so a word that occurs once is in two
    covered = {term for text in kept for term in _found(text, wanted)[0]}
    return math.fsum(weights[term] for term in weights if term in covered) / max(once, math.fsum(weights.values()))


def query_presence(contexts: Sequence[str], query: str) -> float:
    """Return the share of the question's words that `contexts` has, in [0, 1]; 0 for a question without words.

    Words count by the weight of `query_coverage`; one that is absent counts as one that occurs once. In scripts without
    spaces, pairs of characters are counted.
    """
    words = {term for part in _paragraphs(query) for term in _words_or_pairs(part)}
    frequency: dict[Term, int] = {}
    windows = 0
    for text in contexts:
        found, length = _found(text, words)
        windows += _windows(length) if length else 0
        for term, positions in found.items():
            frequency[term] = frequency.get(term, 0) + _windows_with(positions, length)
    absent = math.log(max(1.0, windows / 2)) ** 2
    weights = {term: math.log(windows / frequency[term]) ** 2 if term in frequency else absent for term in words}
    whole = math.fsum(weights.values())
    if whole == 0.0:  # a text of one window: every word that it has is everywhere
        return sum(term in frequency for term in words) / len(words) if words else 0.0
    return math.fsum(weight for term, weight in weights.items() if term in frequency) / whole


def trust_of(coverage: float) -> float:
    """Return the trust in a drafter that contradicts the target, in [0, 1]; see `sampling.adaptive_eta`.

    It is 0 up to a coverage of one half, and 1 at full coverage.
    """
    return min(1.0, max(0.0, 2 * coverage - 1.0))


def _paragraphs(text: str) -> Iterator[list[str]]:
    """Yield the words of each paragraph. Pairs do not cross paragraphs."""
    for part in _GAP.split(text):
        yield words_of(part)


def _terms(words: Sequence[str]) -> set[Term]:
    return {(word,) for word in words if not UNSPACED_CHARACTER.match(word)} | set(zip(words, words[1:], strict=False))


def _words_or_pairs(words: Sequence[str]) -> set[Term]:
    """Return what stands for the words: themselves, and pairs of characters in scripts without spaces."""
    return {term for term in _terms(words) if len(term) == 1 or all(map(UNSPACED_CHARACTER.match, term))}


def _found(text: str, wanted: Set[Term]) -> tuple[Mapping[Term, list[int]], int]:
    """Return the positions of each `wanted` term that occurs, ascending, and the number of words in the text."""
    singles = {word for term in wanted for word in term}
    found: dict[Term, list[int]] = {}
    before = 0
    for words in _paragraphs(text):
        for place, word in () if singles.isdisjoint(words) else enumerate(words):
            if word in singles:  # most words are not
                for term in {(word,), tuple(words[place : place + 2])} & wanted:
                    found.setdefault(term, []).append(before + place)
        before += len(words)
    return found, before


def _windows(words: int) -> int:
    """Return how many half-overlapping windows cover a text."""
    return max(1, math.ceil((words - _STRIDE) / _STRIDE))


def _windows_with(positions: Sequence[int], words: int) -> int:
    """Return how many windows of a text of `words` words contain one of `positions`."""
    last = _windows(words) - 1
    halves = {position // _STRIDE for position in positions}
    return len({min(max(0, window), last) for half in halves for window in (half - 1, half)})
