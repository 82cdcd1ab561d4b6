"""Compression by passages that a host framework or its retriever has already scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

from rapid_integrations.compression.chunker import Chunk, Tokenizer
from rapid_integrations.compression.compressor import Compression, ContextCompressor, compression_of
from rapid_integrations.compression.passage_labels import LabelsOf
from rapid_integrations.compression.passages import Passage, chunks_of_passages, coverage, locate
from rapid_integrations.compression.selection import select_positions, usable_score
from rapid_integrations.config import CompressionConfig
from rapid_integrations.errors import SharedResource
from rapid_integrations.progress import OnProgress

Retrieve: TypeAlias = Callable[[str], Sequence[Passage]]
"""Returns the scored passages that were retrieved for a question."""

_NEVER = float("-inf")


class PassageCompressor(SharedResource):
    """Locates in the contexts the passages that `retrieve` returns, and selects among them without embedding.

    Args:
        retrieve: returns scored passages for the question.
        tokenizer: counts tokens (the target's).
        otherwise: compresses if the passages cover too little of the contexts.
        least_coverage: least share of the contexts that must be scored passages. Scores of everything in the prompt
            (the pipeline's own retrieval) should cover nearly all of it. A retriever that returns only the best few
            passages cannot, so any passage of it suffices.
        source: the name of the source in statistics.
    """

    settings_of_answers = ("_retrieve", "_otherwise", "_least_coverage")

    def __init__(
        self,
        retrieve: Retrieve,
        tokenizer: Tokenizer,
        otherwise: ContextCompressor,
        *,
        least_coverage: float = 0.0,
        source: str = "retriever",
    ) -> None:
        self._retrieve = retrieve
        self._tokenizer = tokenizer
        self._otherwise = otherwise
        self._least_coverage = least_coverage
        self._source = source

    def compress(
        self,
        contexts: Sequence[str],
        query: str,
        config: CompressionConfig,
        on_progress: OnProgress | None = None,
    ) -> Compression:
        """Keep the best passages within the budget, in document order; see `ContextCompressor.compress`."""
        passages = [
            replace(passage, score=usable_score(passage.score, f"the {self._source}"))
            for passage in self._retrieve(query) or ()
        ]
        located = [locate(context, passages) for context in contexts]
        solid = [max(len(context), 1) for context in contexts]
        covered = sum(
            coverage(context, spans) * size for context, spans, size in zip(contexts, located, solid, strict=True)
        ) / sum(solid)
        if not covered or covered < self._least_coverage:
            return self._otherwise.compress(contexts, query, config, on_progress)
        chunks_by_context: list[list[Chunk]] = []
        found: list[float | None] = []
        for context, spans in zip(contexts, located, strict=True):
            scored = chunks_of_passages(context, spans, self._tokenizer)
            chunks_by_context.append([chunk for chunk, _ in scored])
            found += [score for _, score in scored]
        chunks = [chunk for of_context in chunks_by_context for chunk in of_context]
        candidates = [position for position, score in enumerate(found) if score is not None]
        scores = [_NEVER if score is None else score for score in found]
        chosen = select_positions(
            [chunks[position] for position in candidates],
            [scores[position] for position in candidates],
            config.budget(sum(chunk.tokens for chunk in chunks)),
            # The scale of the scores is unknown, so a threshold applies only if it was set.
            _NEVER if config.threshold is None else config.threshold,
            config.min_chunks,
        )
        positions = [candidates[index] for index in chosen]
        labels = [LabelsOf(context) for context in contexts]
        return compression_of(
            contexts, chunks_by_context, chunks, scores, positions, self._source, labels, self._tokenizer
        )
