"""An embedder made of the two functions of a host framework's embedding class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rapid_integrations.compression.embedder import normalised
from rapid_integrations.compression.selection import warn_of_nan
from rapid_integrations.errors import ConfigurationError

Vectors = Sequence[Sequence[float]]


@dataclass(frozen=True)
class HostEmbedder:
    """An `Embedder` made of a host framework's embedding functions.

    The scale of its similarities is unknown, so by default the budget alone decides, without a threshold. Its maximum
    length is unknown too. A chunk is embedded as one window, so keep `chunk_tokens` within what the model reads.

    Attributes:
        name: for messages.
        fingerprint: identity for caches; it differs whenever a text could get another vector.
        embed_texts: returns the vectors (n, dimension) of texts.
        embed_question: returns the vector (dimension,) of a question.
        batch_size: texts given to `embed_texts` at once.
    """

    name: str
    fingerprint: str
    embed_texts: Callable[[list[str]], Vectors]
    embed_question: Callable[[str], Sequence[float]]
    batch_size: int = 32
    threshold: float = -1.0
    max_tokens: int = 2**31

    def split(self, text: str) -> list[str]:
        """Return the text as one window."""
        return [text]

    def embed(self, texts: Sequence[str], *, on_progress: Callable[[int, int], None] | None = None) -> np.ndarray:
        """Return the vectors (n, dimension) of `texts`: float32, L2-normalised."""
        vectors: list[Sequence[float]] = []
        for begin in range(0, len(texts), self.batch_size):
            batch = list(texts[begin : begin + self.batch_size])
            found = self.embed_texts(batch)
            if len(found) != len(batch):
                raise ConfigurationError(f"the embedder {self.name} gave {len(found)} vectors for {len(batch)} texts")
            vectors += found
            if on_progress is not None:
                on_progress(len(vectors), len(texts))
        return self._normalised(vectors)

    def embed_query(self, text: str) -> np.ndarray:
        """Return the vector (dimension,) of a question: float32, L2-normalised."""
        return self._normalised([self.embed_question(text)]).reshape(-1)

    def _normalised(self, vectors: Vectors) -> np.ndarray:
        """Return the vectors with length 1. A vector with NaN or infinity becomes zero, which is similar to nothing."""
        try:
            made = np.array(vectors, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(
                f"the embedder {self.name} gave something other than one list of numbers for each text, all of one "
                f"length: {error}"
            ) from error
        if made.ndim != 2 or not made.shape[1]:
            raise ConfigurationError(f"the embedder {self.name} gave vectors of the shape {made.shape[1:]}")
        broken = ~np.isfinite(made).all(axis=1)
        if broken.any():
            warn_of_nan(f"the embedder {self.name}")
            made[broken] = 0.0
        return normalised(made)
