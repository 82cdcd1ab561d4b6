"""An embedder without a model: words hashed into 64 signed buckets."""

import hashlib
import re
from collections.abc import Callable, Sequence

import numpy as np

from rapid_integrations.compression.chunker import chunk_text
from tests.toys.offsets import WordTokenizer


class HashEmbedder:
    """Cosine similarity of its vectors is about the share of words that two texts have in common."""

    name = "hash"
    fingerprint = "hash-64"
    dimension = 64

    def __init__(self, threshold: float = 0.1, max_tokens: int = 256) -> None:
        self.threshold = threshold
        self.max_tokens = max_tokens
        self.embedded: list[str] = []
        self.queries: list[str] = []

    def split(self, text: str) -> list[str]:
        return [chunk.text for chunk in chunk_text(text, WordTokenizer(), self.max_tokens)]

    def embed(self, texts: Sequence[str], *, on_progress: Callable[[int, int], None] | None = None) -> np.ndarray:
        self.embedded += texts
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for done, text in enumerate(texts, start=1):
            vectors[done - 1] = self._vector(text)
            if on_progress is not None:
                on_progress(done, len(texts))
        return vectors

    def embed_query(self, text: str) -> np.ndarray:
        self.queries.append(text)
        return self._vector(text)

    def _vector(self, text: str) -> np.ndarray:
        vector = np.zeros(self.dimension, dtype=np.float32)
        for word in re.findall(r"\w+", text.lower()):
            digest = hashlib.sha256(word.encode()).digest()
            vector[digest[0] % self.dimension] += 1 if digest[1] % 2 else -1
        return vector / max(float(np.linalg.norm(vector)), 1e-12)
