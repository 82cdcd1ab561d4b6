"""Which chunks the drafter reads: the best scored ones within a budget of tokens. Pure."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np

from rapid_integrations.compression.chunker import Chunk

_said: set[str] = set()  # whose scores were warned of


@dataclass(frozen=True, slots=True)
class ScoredChunk:
    """A chunk and its cosine similarity to the question; None if nothing had to be scored, or the score is NaN."""

    chunk: Chunk
    score: float | None


def select(
    chunks: Sequence[Chunk],
    scores: Sequence[float] | np.ndarray,
    budget: int,
    threshold: float,
    min_chunks: int,
) -> list[ScoredChunk]:
    """Return the chosen ones of `chunks` with their `scores` (n_chunks,), in document order.

    `select_positions` says which ones those are.
    """
    chosen = select_positions(chunks, scores, budget, threshold, min_chunks)
    return [scored(chunks[position], float(scores[position])) for position in chosen]


def scored(chunk: Chunk, score: float) -> ScoredChunk:
    """Return the chunk with its score as it is reported: JSON has no form for infinity and NaN."""
    return ScoredChunk(chunk, score if math.isfinite(score) else None)


def usable_score(score: object, whose: str) -> float | None:
    """Return a score of somebody else's as a number; None for what is none.

    NaN (the cosine of a zero vector) is the lowest score that there is. It is warned of once.

    Args:
        score: a number of any kind, or something else.
        whose: what computed it, for the warning.
    """
    if not isinstance(score, Real) or isinstance(score, bool):
        return None
    value = float(score)
    if not math.isnan(value):
        return value
    warn_of_nan(whose)
    return -math.inf


def warn_of_nan(whose: str) -> None:
    """Say once in this process that a part computes NaN."""
    if whose not in _said:
        _said.add(whose)
        warnings.warn(
            f"{whose} gave something that is no number (NaN): such passages are the last that are chosen. A vector of "
            "zeros, or one that was computed wrongly, has such a similarity to everything",
            stacklevel=2,
        )


def select_positions(
    chunks: Sequence[Chunk],
    scores: Sequence[float] | np.ndarray,
    budget: int,
    threshold: float,
    min_chunks: int,
) -> list[int]:
    """Return the positions in `chunks` of the chosen ones, ascending.

    Chunks are ranked by score (NaN is the lowest), ties by document order, and a chunk that repeats a better ranked
    one but for white space is left out. The best `min_chunks` are taken whatever their score and size; of the rest each
    that scores at least `threshold` and still fits into what is left of `budget` (tokens), so a short chunk may follow
    a long one that did not fit.
    """
    assert len(chunks) == len(scores), f"{len(chunks)} chunks but {len(scores)} scores"
    values = [-math.inf if math.isnan(score) else float(score) for score in scores]  # NaN would be in no order
    ranking = sorted(range(len(chunks)), key=lambda position: (-values[position], position))
    chosen: list[int] = []
    spent = 0
    for rank, position in enumerate(_without_repeats(ranking, chunks)):
        tokens = chunks[position].tokens
        if rank < min_chunks or (values[position] >= threshold and spent + tokens <= budget):
            chosen.append(position)
            spent += tokens
    return sorted(chosen)


def relevance_of(best_score: float, threshold: float) -> float:
    """Return how sure it is that anything relevant was found, in [0, 1].

    0 where the best chunk only just reaches the threshold of relevance, 1 from half as much again on. With a threshold
    that is not positive the scores' scale is unknown: 1.
    """
    return 1.0 if threshold <= 0 else min(1.0, max(0.0, 2 * (best_score / threshold - 1.0)))


def _without_repeats(ranking: Sequence[int], chunks: Sequence[Chunk]) -> list[int]:
    """Return `ranking` with the first position of each text only, texts compared without their white space's shape."""
    first: dict[str, int] = {}
    for position in ranking:
        first.setdefault(" ".join(chunks[position].text.split()), position)
    return list(first.values())
