"""The word index over one document's chunks: BM25.

The scores are those of bm25s to the last bit (`tests/unit/compression/test_word_index.py`), which imports scipy for a
fifth of a second.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np

from rapid_integrations.compression.words import UNSPACED_CHARACTER, words_of
from rapid_integrations.errors import SharedResource

_NAMES = 10  # terms that a second search looks for
_COMMON = 0.1  # share of the texts; a term that more of them hold names nothing
_K1, _B = 1.5, 0.75  # how soon repetitions stop counting, and how much a text's length counts
_STEM = 5  # letters that are kept of a word; prefixes stand in for stems in every language


class WordIndex(SharedResource):
    """A BM25 index over `texts`, in the variant of Lucene.

    Args:
        texts: the texts to score, one for each chunk. Empty texts are allowed.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.terms: tuple[tuple[str, ...], ...] = tuple(tuple(index_terms(text)) for text in texts)
        self._holders: dict[str, tuple[list[int], list[int]]] = {}  # the texts that hold a term, and how often
        for position, terms in enumerate(self.terms):
            for term, count in Counter(terms).items():
                positions, counts = self._holders.setdefault(term, ([], []))
                positions.append(position)
                counts.append(count)
        lengths = np.array([len(terms) for terms in self.terms], dtype=np.float64)  # (n_texts,)
        mean = lengths.mean() if self._holders else 1.0
        self._damping = _K1 * ((1 - _B) + _B * lengths / mean)  # (n_texts,)

    def scores(self, terms: Sequence[str]) -> np.ndarray:
        """Return the BM25 score (n_texts,), float64, of each text for `terms`, which come from `index_terms`.

        A text without any of them has the score 0. A term that is given twice counts twice.
        """
        found = np.zeros(len(self.terms), dtype=np.float32)
        for term in terms:
            if term in self._holders:
                positions, counts = (np.array(each) for each in self._holders[term])
                weight = np.float32(math.log(1 + (len(self.terms) - len(positions) + 0.5) / (len(positions) + 0.5)))
                found[positions] += (weight * (counts / (self._damping[positions] + counts))).astype(np.float32)
        return found.astype(np.float64)

    def names_in(self, position: int, known: Collection[str]) -> list[str]:
        """Return the ten rarest terms of the text at `position` that link it with others, the rarest first.

        Such a term occurs in at least two texts, in at most a tenth of them (or two), and is not in `known`.
        """
        most = max(2, int(_COMMON * len(self.terms)))
        linking = [
            term
            for term in dict.fromkeys(self.terms[position])
            if term not in known and 2 <= self._texts_with(term) <= most
        ]
        return sorted(linking, key=self._texts_with)[:_NAMES]

    def _texts_with(self, term: str) -> int:
        """Return in how many texts a term of some text occurs."""
        return len(self._holders[term][0])


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
