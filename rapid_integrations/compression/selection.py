"""Selects the chunks that the drafter reads: the best scored ones within a budget of tokens. Pure."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np

from rapid_integrations.compression.chunker import Chunk

_said: set[str] = set()  # sources whose NaN scores were warned of


@dataclass(frozen=True, slots=True)
class ScoredChunk:
    """A chunk and its score: the cosine similarity to the question, or the score of what else ranked it.

    With `search="words"` it is BM25, and with a reranker or a retriever theirs. It is None if it is NaN or was not
    needed.
    """

    chunk: Chunk
    score: float | None


def select(
    chunks: Sequence[Chunk],
    scores: Sequence[float] | np.ndarray,
    budget: int,
    threshold: float,
    min_chunks: int,
) -> list[ScoredChunk]:
    """Return the selected `chunks` with their `scores` (n_chunks,), in document order; see `select_positions`."""
    chosen = select_positions(chunks, scores, budget, threshold, min_chunks)
    return [scored(chunks[position], float(scores[position])) for position in chosen]


def scored(chunk: Chunk, score: float) -> ScoredChunk:
    """Return the chunk with its score for reports, where infinity and NaN become None, as JSON lacks them."""
    return ScoredChunk(chunk, score if math.isfinite(score) else None)


def usable_score(score: object, whose: str) -> float | None:
    """Return another part's score as a float, or None if it is not a number.

    NaN (the cosine of a zero vector) becomes the lowest score, and is warned of once.

    Args:
        score: a number of any kind, or something else.
        whose: the name of the part that computed it, for the warning.
    """
    if not isinstance(score, Real) or isinstance(score, bool):
        return None
    value = float(score)
    if not math.isnan(value):
        return value
    warn_of_nan(whose)
    return -math.inf


def warn_of_nan(whose: str) -> None:
    """Warn once per process that a part computes NaN."""
    if whose not in _said:
        _said.add(whose)
        warnings.warn(
            f"{whose} gave NaN, which is not a number. Such passages are chosen last. A vector of "
            "zeros, or one that was computed wrongly, has the similarity NaN to everything",
            stacklevel=2,
        )


def select_positions(
    chunks: Sequence[Chunk],
    scores: Sequence[float] | np.ndarray,
    budget: int,
    threshold: float,
    min_chunks: int,
    eligible: Sequence[bool] | None = None,
    always: Sequence[int] = (),
) -> list[int]:
    """Return the selected positions in `chunks`, ascending.

    Those of `always` are among them, and the budget (tokens) pays for them first. Others are ranked by score (NaN is
    the lowest), and ties keep document order. A chunk that repeats a better ranked one, apart from white space, is
    left out. The best `min_chunks` are taken whatever their score and size. Of the rest, each chunk is taken that
    scores at least `threshold`, is `eligible` (None: all are) and still fits into the remaining `budget`. So a short
    chunk may be taken after a long one that did not fit.
    """
    assert len(chunks) == len(scores), f"{len(chunks)} chunks but {len(scores)} scores"
    values = [-math.inf if math.isnan(score) else float(score) for score in scores]  # NaN cannot be ordered
    ranking = sorted(range(len(chunks)), key=lambda position: (-values[position], position))
    chosen = list(always)
    spent = sum(chunks[position].tokens for position in always)
    unlike = _without_repeats([*always, *ranking], chunks)
    for rank, position in enumerate(each for each in unlike if each not in always):
        tokens = chunks[position].tokens
        allowed = values[position] >= threshold and (eligible is None or eligible[position])
        if rank < min_chunks or (allowed and spent + tokens <= budget):
            chosen.append(position)
            spent += tokens
    return sorted(chosen)


def relevance_of(best_score: float, threshold: float) -> float:
    """Return how certain it is that a relevant chunk was found, in [0, 1].

    It is 0 if the best chunk only just reaches the threshold, and 1 from 1.5 times the threshold on. If the threshold
    is not positive, the scale of the scores is unknown and the result is 1.
    """
    return 1.0 if threshold <= 0 else min(1.0, max(0.0, 2 * (best_score / threshold - 1.0)))


def _without_repeats(ranking: Sequence[int], chunks: Sequence[Chunk]) -> list[int]:
    """Return `ranking` with only the first position of each text. Texts that differ in white space count as equal."""
    first: dict[str, int] = {}
    for position in ranking:
        first.setdefault(" ".join(chunks[position].text.split()), position)
    return list(first.values())
