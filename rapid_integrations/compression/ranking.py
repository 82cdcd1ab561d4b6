"""Ranks chunks by words and vectors together, with the help of their neighbours and of names. Pure.

Scores of two kinds are put on one scale by their mean and standard deviation over the document's chunks, and added.
Unlike ranks, this keeps how far the best chunks stand out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from rapid_integrations.compression.word_index import WordIndex

_SECOND_ROUND = 0.3  # weight beside the first round's standardised scores


def standardised(scores: np.ndarray) -> np.ndarray:
    """Return `scores` (n,) with the mean 0 and the standard deviation 1; all zeros if they are equal.

    What is not finite gets a score below all others.
    """
    values = np.array(scores, dtype=np.float64)
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(len(values))
    values[~finite] = values[finite].min() - max(1.0, values[finite].std())
    spread = float(values.std())
    return np.asarray((values - values.mean()) / spread) if spread > 1e-12 else np.zeros(len(values))


def fused(kinds: list[np.ndarray]) -> np.ndarray:
    """Return the mean (n,) of several kinds of scores (n,) for the same chunks, each standardised."""
    return np.asarray(np.mean([standardised(scores) for scores in kinds], axis=0))


def with_second_round(ranks: np.ndarray, words: WordIndex, question: Sequence[str]) -> np.ndarray:
    """Return `ranks` (n,), standardised, raised for the chunks that a second search by words finds.

    A question of several hops names the first passage only ("Who founded the publisher of the journal X?"), and that
    passage names the next one. So the second search looks for the names of the best chunk, and for the terms of the
    question that the best chunk lacks. `question` are the question's terms.
    """
    if not len(ranks):
        return ranks
    best = int(np.argmax(ranks))
    there = set(words.terms[best])
    found = words.scores([term for term in question if term not in there] + words.names_in(best, set(question)))
    found[best] = 0.0  # it is found already
    return np.asarray(ranks + _SECOND_ROUND * standardised(found))


def with_neighbours(scores: np.ndarray, weight: float, firsts: np.ndarray) -> np.ndarray:
    """Return log(e^s + weight * e^before + weight * e^behind) for each of the `scores` s (n,).

    A chunk beside a good one so counts as nearly as good: with a weight of 0.3 as one that scores 1.2 less. A passage
    longer than one chunk is found as a whole, and a chunk is read with what stands around it. Chunks beside mediocre
    ones gain little, unlike with a sum of the scores.

    Args:
        scores: (n,), standardised, so that their scale is known.
        weight: in [0, 1]; 0 returns the scores unchanged.
        firsts: (n,) whether a chunk is the first of its context, so that it has no chunk before it.
    """
    if not weight or not len(scores):
        return scores
    discount = math.log(weight)
    before = np.where(firsts, -np.inf, np.roll(scores, 1) + discount)
    behind = np.where(np.roll(firsts, -1), -np.inf, np.roll(scores, -1) + discount)
    return np.asarray(np.logaddexp(scores, np.logaddexp(before, behind)))
