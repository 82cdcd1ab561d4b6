"""The word index over one document's chunks: BM25, computed by bm25s."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from rapid_integrations.compression.words import UNSPACED_CHARACTER, words_of
from rapid_integrations.errors import SharedResource
from rapid_integrations.progress import import_progress_bars

_NAMES = 10  # terms that a second search looks for
_COMMON = 0.1  # share of the texts; a term that more of them hold names nothing
_STEM = 5  # letters that are kept of a word; prefixes stand in for stems in every language


class WordIndex(SharedResource):
    """A BM25 index over `texts`, in the variant of Lucene.

    Args:
        texts: the texts to score, one for each chunk. Empty texts are allowed.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.terms: tuple[tuple[str, ...], ...] = tuple(tuple(index_terms(text)) for text in texts)
        self._bm25: Any = None
        if any(self.terms):  # without a term there is no vocabulary
            import_progress_bars()
            self._bm25 = importlib.import_module("bm25s").BM25(method="lucene")
            self._bm25.index([list(terms) for terms in self.terms], create_empty_token=False, show_progress=False)

    def scores(self, terms: Sequence[str]) -> np.ndarray:
        """Return the BM25 score (n_texts,), float64, of each text for `terms`, which come from `index_terms`.

        A text without any of them has the score 0. A term that is given twice counts twice.
        """
        known = [] if self._bm25 is None else self._bm25.get_tokens_ids(list(terms))
        if not known:
            return np.zeros(len(self.terms))
        return np.asarray(self._bm25.get_scores_from_ids(known), dtype=np.float64)

    def names_in(self, position: int, known: Collection[str]) -> list[str]:
        """Return the ten rarest terms of the text at `position` that link it with others, the rarest first.

        Such a term occurs in at least two texts, in at most a tenth of them (or two), and is not in `known`.
        """
        most = max(2, int(_COMMON * len(self.terms)))
        linking = [
            term
            for term in dict.fromkeys(self.terms[position])
            if term not in known and 2 <= self._frequencies[term] <= most
        ]
        return sorted(linking, key=lambda term: self._frequencies[term])[:_NAMES]

    @cached_property
    def _frequencies(self) -> Counter[str]:
        """In how many texts each term occurs."""
        return Counter(term for terms in self.terms for term in set(terms))


def index_terms(text: str) -> list[str]:
    """Return the terms of `text` for the word index, in order.

    A word of letters is cut to its first five, so that inflected forms match ("retrieved", "retrieval"). Words with
    digits stay whole. Scripts without spaces give each pair of neighbouring characters, as Lucene's CJK bigrams, and
    a character that stands alone gives itself.
    """
    terms: list[str] = []
    before = ""
    paired = True  # whether the unspaced character `before` is in a pair
    for word in words_of(text):
        unspaced = UNSPACED_CHARACTER.match(word) is not None
        if unspaced and before:
            terms.append(before + word)
        elif before and not paired:
            terms.append(before)
        if not unspaced:
            terms.append(word[:_STEM] if word.isalpha() else word)
        paired = unspaced and bool(before)
        before = word if unspaced else ""
    if before and not paired:
        terms.append(before)
    return terms
