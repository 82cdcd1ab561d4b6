"""Which chunks the drafter reads: the best scored ones within a budget of tokens. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rapid_integrations.compression.chunker import Chunk


@dataclass(frozen=True, slots=True)
class ScoredChunk:
    """A chunk and its cosine similarity to the question; None where nothing had to be scored."""

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
    return [ScoredChunk(chunks[position], float(scores[position])) for position in chosen]


def select_positions(
    chunks: Sequence[Chunk],
    scores: Sequence[float] | np.ndarray,
    budget: int,
    threshold: float,
    min_chunks: int,
) -> list[int]:
    """Return the positions in `chunks` of the chosen ones, ascending.

    Chunks are ranked by score, ties by document order, and a chunk that repeats a better ranked one but for white
    space is left out. The best `min_chunks` are taken whatever their score and size; of the rest each that scores at
    least `threshold` and still fits into what is left of `budget` (tokens), so a short chunk may follow a long one
    that did not fit.
    """
    assert len(chunks) == len(scores), f"{len(chunks)} chunks but {len(scores)} scores"
    assert not any(math.isnan(score) for score in scores), "a chunk scored NaN"
    ranking = sorted(range(len(chunks)), key=lambda position: (-float(scores[position]), position))
    chosen: list[int] = []
    spent = 0
    for rank, position in enumerate(_without_repeats(ranking, chunks)):
        tokens = chunks[position].tokens
        if rank < min_chunks or (scores[position] >= threshold and spent + tokens <= budget):
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
