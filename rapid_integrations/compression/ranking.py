"""Ranks chunks by words and vectors together, with the help of their neighbours. Pure.

Scores of two kinds are put on one scale by their mean and standard deviation over the document's chunks, and added.
Unlike ranks, this keeps how far the best chunks stand out.
"""

from __future__ import annotations

import numpy as np


def standardised(scores: np.ndarray) -> np.ndarray:
    """Return `scores` (n,) with the mean 0 and the standard deviation 1; all zeros if they are equal.

    NaN and infinity take the lowest finite score.
    """
    values = np.array(scores, dtype=np.float64)
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(len(values))
    values[~finite] = values[finite].min()
    spread = float(values.std())
    return (values - values.mean()) / spread if spread > 1e-12 else np.zeros(len(values))


def fused(kinds: list[np.ndarray]) -> np.ndarray:
    """Return the mean (n,) of several kinds of scores (n,) for the same chunks, each standardised."""
    return np.mean([standardised(scores) for scores in kinds], axis=0)


def with_neighbours(scores: np.ndarray, weight: float, firsts: np.ndarray) -> np.ndarray:
    """Return `scores` (n,) plus `weight` times those of the chunk before and the chunk behind.

    A passage longer than one chunk is so found as a whole, and a chunk is read with what stands around it. The lowest
    score stands in for a neighbour that does not exist.

    Args:
        scores: (n,), higher is better.
        weight: in [0, 1]; 0 returns the scores unchanged.
        firsts: (n,) whether a chunk is the first of its context, so that it has no chunk before it.
    """
    if not weight or not len(scores):
        return scores
    lowest = scores.min()
    before = np.where(firsts, lowest, np.roll(scores, 1))
    behind = np.where(np.roll(firsts, -1), lowest, np.roll(scores, -1))
    return scores + weight * (before + behind)
