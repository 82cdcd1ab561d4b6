"""Embedders turn text into unit vectors without cutting any of it off.

Every embedder has its own threshold, because cosine similarities of different models are not comparable. It also has
its own maximum length, to which `split` cuts a text into windows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rapid_integrations.compression.embedding_model import EmbeddingModel, load_embedding_model
from rapid_integrations.compression.windows import encodable
from rapid_integrations.errors import ModelLoadError, SharedResource


class Embedder(Protocol):
    """The interface that compression needs of an embedding model. Threads may share one."""

    @property
    def name(self) -> str:
        """Name for messages and reports."""
        ...

    @property
    def fingerprint(self) -> str:
        """A printable identity for caches. It differs whenever a text could get another vector."""
        ...

    @property
    def threshold(self) -> float:
        """The least cosine similarity of a relevant chunk."""
        ...

    @property
    def max_tokens(self) -> int:
        """The maximum length of a window in tokens, special ones included."""
        ...

    def split(self, text: str) -> list[str]:
        """Return windows that each fit `max_tokens` and join to `text` again."""
        ...

    def embed(self, texts: Sequence[str], *, on_progress: Callable[[int, int], None] | None = None) -> np.ndarray:
        """Return the vectors (n, dimension) of `texts` from a document: float32, L2-normalised."""
        ...

    def embed_query(self, text: str) -> np.ndarray:
        """Return the vector (dimension,) of a question: float32, L2-normalised."""
        ...


class SentenceTransformerEmbedder(SharedResource):
    """A sentence-transformers model, from a local folder or by its hub name. It is loaded on first use.

    - `source`: folder or hub name; `device`: torch device, None picks the best one.
    - `threshold`: least cosine similarity of a relevant chunk.
    - `max_tokens`: longest window, special tokens and prompt included; None is the model's own maximum.
    - `batch_size`: windows embedded at once.
    - `trust_remote_code`: run Python code that comes with the model.
    - `use_safetensors`: False allows a model that is published as `.bin` only. torch then loads only weights and never
      unpickles code.
    """

    settings_of_answers = ("_source", "_threshold", "_max_tokens", "_use_safetensors")

    def __init__(
        self,
        source: str | Path,
        *,
        device: str | None = None,
        threshold: float = 0.3,
        max_tokens: int | None = None,
        batch_size: int = 16,
        trust_remote_code: bool = False,
        use_safetensors: bool = True,
    ) -> None:
        self._source = str(Path(source).expanduser()) if _is_path(source) else str(source)
        if _is_path(source) and not Path(self._source).is_dir():
            raise ModelLoadError(
                f"There is no embedding model in {self._source}: the folder does not exist. Give the folder of a "
                "sentence-transformers model or its hub name; `rapid models pull all-minilm-l6-v2` fetches one."
            )
        self._device = device
        self._threshold = threshold
        self._max_tokens = max_tokens
        self._batch_size = batch_size
        self._trust_remote_code = trust_remote_code
        self._use_safetensors = use_safetensors
        self._loaded: EmbeddingModel | None = None
        self._lock = threading.Lock()  # a tokenizer's truncation and padding are state, which threads must not share

    def __reduce_ex__(self, protocol: Any) -> Any:
        return object.__reduce_ex__(self, protocol)  # only settings: another process loads the model by its name

    def __getstate__(self) -> dict[str, Any]:
        source = str(Path(self._source).absolute()) if _is_path(self._source) else self._source
        return {name: value for name, value in vars(self).items() if name != "_lock"} | {
            "_source": source,
            "_loaded": None,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())

    @property
    def name(self) -> str:
        """The folder name or hub name."""
        return Path(self._source).name if _is_path(self._source) else self._source

    @property
    def threshold(self) -> float:
        """The least cosine similarity of a relevant chunk."""
        return self._threshold

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of weights, tokenizer, modules, prompts and maximum length. It does not depend on the path."""
        return self.load().fingerprint

    @property
    def max_tokens(self) -> int:
        """The maximum length of a window in tokens, special ones and the prompt included."""
        return self.load().max_tokens

    def split(self, text: str) -> list[str]:
        """Return windows of at most `max_tokens` tokens, special ones and the prompt included, that join to `text`."""
        return self.load().windows.split(text)

    def embed(self, texts: Sequence[str], *, on_progress: Callable[[int, int], None] | None = None) -> np.ndarray:
        """Return the vectors (n, dimension) of `texts`: float32, L2-normalised, with the model's document prompt.

        A text that does not come from `split` may exceed `max_tokens`; the model then reads only its beginning.
        Raises `ModelLoadError` if the model cannot be loaded or computes NaN.
        """
        loaded = self.load()
        vectors = np.zeros((len(texts), loaded.dimension), dtype=np.float32)
        by_length = sorted(range(len(texts)), key=lambda position: -len(texts[position]))  # keeps padding small
        for begin in range(0, len(texts), self._batch_size):
            batch = by_length[begin : begin + self._batch_size]
            vectors[batch] = self._encode(loaded.model.encode_document, [texts[position] for position in batch])
            if on_progress is not None:
                on_progress(begin + len(batch), len(texts))
        return vectors

    def embed_query(self, text: str) -> np.ndarray:
        """Return the vector (dimension,) of a question: float32, L2-normalised, with the model's query prompt.

        A question longer than `max_tokens` gets the mean direction of its windows. Raises like `embed`.
        """
        loaded = self.load()
        windows = self._encode(loaded.model.encode_query, loaded.query_windows.split(text))  # (n_windows, dimension)
        vectors = normalised(windows.mean(axis=0, keepdims=True))  # (1, dimension)
        return vectors.reshape(-1)

    def load(self) -> EmbeddingModel:
        """Load the model now instead of on first use.

        Raises `ModelLoadError` if that fails, and `ConfigurationError` for a `max_tokens` that the model cannot have.
        """
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load_model()
            return self._loaded

    def _load_model(self) -> EmbeddingModel:
        return load_embedding_model(
            self._source,
            device=self._device,
            max_tokens=self._max_tokens,
            trust_remote_code=self._trust_remote_code,
            use_safetensors=self._use_safetensors,
        )

    def _encode(self, encode: Callable[..., Any], texts: Sequence[str]) -> np.ndarray:
        clean = [encodable(text) for text in texts]
        with self._lock:
            vectors = np.asarray(encode(clean, batch_size=self._batch_size, show_progress_bar=False), dtype=np.float32)
        if not np.isfinite(vectors).all():
            raise ModelLoadError(
                f"The embedding model {self._source} computed NaN or infinity; its weights are damaged, or their "
                "number format is too narrow for this device. Try another device, or load another model."
            )
        return normalised(vectors)


def normalised(vectors: np.ndarray) -> np.ndarray:
    """Return `vectors` (n, dimension) scaled to length 1, as float32; a zero vector stays zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)  # (n, 1)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), dtype=np.float32)


def _is_path(source: str | Path) -> bool:
    """Return whether `source` means a folder: a Path, text that starts like a path, or an existing folder."""
    return isinstance(source, Path) or source.startswith((".", "/", "~", "\\")) or Path(source).is_dir()
