"""The vector index over one document's windows, searched by inner product."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rapid_integrations.compression.chunker import Chunk
from rapid_integrations.compression.embedder import Embedder
from rapid_integrations.compression.embedding_cache import EmbeddingCache
from rapid_integrations.errors import ConfigurationError, SharedResource

Report = Callable[[int, int], None]  # done, total

_SLAB = 64  # windows embedded between two writes to the cache, so an interrupted run keeps earlier ones
_FEW = 4096  # windows; a product with numpy takes less time than FAISS takes to be imported
_BLANK_SCORE = -1.0  # the lowest possible cosine, because white space answers nothing


class ChunkIndex(SharedResource):
    """Inner-product index over the windows of `n_chunks` chunks; a chunk has the score of its best window.

    FAISS searches many windows, and numpy a few thousand.
    An embedder with a short maximum length reads a chunk as several windows, so all of it is read.
    """

    def __init__(self, vectors: np.ndarray, owners: np.ndarray, n_chunks: int) -> None:
        """Index `vectors` (n_windows, dimension) float32, L2-normalised; `owners` (n_windows,) names their chunks."""
        self._owners = owners
        self._n_chunks = n_chunks
        self._dimension = vectors.shape[1] if len(vectors) else 0  # without windows it is unknown
        self._few: np.ndarray | None = vectors
        self._faiss: Any = None
        if len(vectors) > _FEW:
            import faiss

            self._few = None
            self._faiss = faiss.IndexFlatIP(vectors.shape[1])
            self._faiss.add(vectors)

    @classmethod
    def build(
        cls,
        chunks: Sequence[Chunk],
        embedder: Embedder,
        cache: EmbeddingCache,
        on_progress: Report | None = None,
    ) -> ChunkIndex:
        """Embed the windows of `chunks`, each distinct text once and only if `cache` lacks it.

        `on_progress(done, total)` counts the windows that had to be embedded.
        """
        windows = [
            (owner, window)
            for owner, chunk in enumerate(chunks)
            for window in embedder.split(chunk.text)
            if not window.isspace()
        ]
        by_text = _embed_through_cache(list(dict.fromkeys(text for _, text in windows)), embedder, cache, on_progress)
        owners = np.array([owner for owner, _ in windows], dtype=np.int64)  # (n_windows,)
        vectors = np.array([by_text[text] for _, text in windows], dtype=np.float32)  # (n_windows, dimension)
        return cls(vectors, owners, len(chunks))

    def scores(self, query_vector: np.ndarray) -> np.ndarray:
        """Return each chunk's cosine similarity (n_chunks,) to `query_vector` (dimension,); -1 for a blank chunk.

        Raises:
            ConfigurationError: the vectors of texts and questions differ in dimension.
        """
        scores = np.full(self._n_chunks, _BLANK_SCORE, dtype=np.float32)
        if not self._dimension:
            return scores
        if len(query_vector) != self._dimension:
            raise ConfigurationError(
                f"the embedder gave the question a vector of {len(query_vector)} numbers, and the document's "
                f"passages vectors of {self._dimension}: they cannot be compared. Embed both with the same model"
            )
        query = np.ascontiguousarray(query_vector, dtype=np.float32)
        if self._few is not None:
            np.fmax.at(scores, self._owners, np.einsum("nd,d->n", self._few, query))  # passes over NaN
        else:
            similarities, windows = self._faiss.search(query[None], self._faiss.ntotal)  # (1, n_windows), best first
            found = windows[0] >= 0  # a similarity of NaN is not found
            np.fmax.at(scores, self._owners[windows[0][found]], similarities[0][found])
        return scores


def _embed_through_cache(
    texts: Sequence[str],
    embedder: Embedder,
    cache: EmbeddingCache,
    on_progress: Report | None,
) -> dict[str, np.ndarray]:
    """Return the vector (dimension,) of each of the distinct `texts`."""
    keys = [cache.key(embedder.fingerprint, text) for text in texts]
    known = cache.get_many(keys)
    vectors = {text: vector for text, vector in zip(texts, known, strict=True) if vector is not None}
    missing = [(key, text) for key, text in zip(keys, texts, strict=True) if text not in vectors]
    for begin in range(0, len(missing), _SLAB):
        slab = missing[begin : begin + _SLAB]
        report = _shifted(on_progress, begin, len(missing))
        embedded = embedder.embed([text for _, text in slab], on_progress=report)
        cache.put_many([key for key, _ in slab], embedded)
        vectors.update((text, vector) for (_, text), vector in zip(slab, embedded, strict=True))
    return vectors


def _shifted(on_progress: Report | None, done: int, total: int) -> Report | None:
    """Return a callback for one slab that reports to the overall callback."""
    if on_progress is None:
        return None
    return lambda done_here, _: on_progress(done + done_here, total)
