"""Whether the documents say what a question asks, as far as retrieval can tell. Pure.

Two signs are weighed by a logistic model: how similar the best chunk is to the question, and which share of the
question's words the documents have at all. The weights were fitted on questions about real documents and the same
questions about other documents of their kind (docs/sources.md has the figures, `benchmarks/abstention.py` the
measurement). What the models' probabilities of the answer add was measured, too: nothing.
"""

from __future__ import annotations

import math

_WITH_VECTORS = (-7.0, 3.2, 3.4)  # 1, similarity of the best chunk over the embedder's threshold, share of the words
_WORDS_ALONE = (-2.6, 4.9)  # 1, share of the words


def answerable(presence: float, similarity: float | None) -> float:
    """Return the probability that the documents answer a question, in [0, 1].

    Args:
        presence: see `query_presence`.
        similarity: that of the best chunk to the question, as a multiple of the embedder's threshold. None if the
            scale of the scores is unknown, or no embedder was asked.
    """
    if similarity is None:
        return _logistic(_WORDS_ALONE[0] + _WORDS_ALONE[1] * presence)
    bias, of_similarity, of_presence = _WITH_VECTORS
    return _logistic(bias + of_similarity * similarity + of_presence * presence)


def _logistic(value: float) -> float:
    return 0.5 * (1.0 + math.tanh(value / 2))
