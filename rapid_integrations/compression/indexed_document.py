"""The chunks of one request's contexts, and their indices by vectors and by words, each built when it is first used."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate

import numpy as np

from rapid_integrations.compression.chunker import Chunk
from rapid_integrations.compression.embedder import Embedder
from rapid_integrations.compression.embedding_cache import EmbeddingCache
from rapid_integrations.compression.headings import headings_of
from rapid_integrations.compression.index import ChunkIndex, Report
from rapid_integrations.compression.passage_labels import LabelsOf
from rapid_integrations.compression.word_index import WordIndex


@dataclass
class IndexedDocument:
    """The contexts of a request, cut into chunks. Threads may share it.

    Attributes:
        contexts: their texts.
        chunks: the chunks of each context.
        labels: the labels of the passages in each context.
        label_tokens: has one number for each chunk of all contexts: the tokens of the part of its passage's label that
            the chunk lacks.
    """

    contexts: tuple[str, ...]
    chunks: tuple[tuple[Chunk, ...], ...]
    labels: Sequence[LabelsOf]
    label_tokens: Sequence[int]
    _vectors: ChunkIndex | None = None
    _words: WordIndex | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @cached_property
    def all_chunks(self) -> list[Chunk]:
        """The chunks of all contexts, one context after another."""
        return [chunk for of_context in self.chunks for chunk in of_context]

    @cached_property
    def firsts(self) -> np.ndarray:
        """Return (n_chunks,) whether a chunk is the first of its context."""
        return np.array([number == 0 for of_context in self.chunks for number in range(len(of_context))], dtype=bool)

    def opening(self, tokens: int) -> range:
        """Return the positions of the chunks with which the first context that has any begins: as many as fit."""
        first = next((of_context for of_context in self.chunks if of_context), ())
        ends = accumulate(chunk.tokens for chunk in first)
        return range(sum(end <= tokens for end in ends))

    def sized(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        """Return the chunks with the sizes that the budget counts, which include the added labels."""
        return [
            replace(chunk, tokens=chunk.tokens + extra) if extra else chunk
            for chunk, extra in zip(chunks, self.label_tokens, strict=True)
        ]

    def vectors(self, embedder: Embedder, cache: EmbeddingCache, report: Report | None) -> ChunkIndex:
        """Return the vector index; the first caller builds it, and other callers wait."""
        with self._lock:
            if self._vectors is None:
                self._vectors = ChunkIndex.build(self.all_chunks, embedder, cache, report)
            return self._vectors

    def words(self) -> WordIndex:
        """Return the word index, in which a chunk also has the words of the headings it stands under."""
        with self._lock:
            if self._words is None:
                self._words = WordIndex(
                    [
                        f"{heading}\n{chunk.text}" if heading else chunk.text
                        for text, chunks in zip(self.contexts, self.chunks, strict=True)
                        for heading, chunk in zip(headings_of(text, chunks), chunks, strict=True)
                    ]
                )
            return self._words
