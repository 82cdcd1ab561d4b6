"""BGE-M3's dense vectors (arXiv 2402.03216), the paper's embedder, through its authors' package FlagEmbedding.

BGE-M3 is published without safetensors. FlagEmbedding loads its `.bin` and `.pt` files as weights only and never
unpickles code.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rapid_integrations.compression.embedder import SentenceTransformerEmbedder
from rapid_integrations.compression.embedding_model import EmbeddingModel, without_loading_bar
from rapid_integrations.compression.weights_digest import weights_digest
from rapid_integrations.compression.windows import Windows
from rapid_integrations.errors import ConfigurationError, MissingExtraError, ModelLoadError

BGE_M3 = "BAAI/bge-m3"
_HEADS = "colbert_linear.pt"  # only BGE-M3 and models tuned from it have this file
_LEAST_ROOM = 8  # tokens of text in a window


class BgeM3Embedder(SentenceTransformerEmbedder):
    """BGE-M3, or a model tuned from it, from a local folder or by its hub name. It is loaded on first use.

    - `source`: folder or hub name; `device`: torch device, None picks CUDA where there is one.
    - `threshold`: least cosine similarity of a relevant chunk; 0.3 is the value of arXiv 2502.20330.
    - `max_tokens`: longest window, special tokens included; None is the model's own maximum (8,192).
    - `batch_size`: windows embedded at once.
    - `half_precision`: compute in float16; not available on CPUs, where it would be slower than float32.

    Loading raises `MissingExtraError` without FlagEmbedding.
    """

    def __init__(
        self,
        source: str | Path = BGE_M3,
        *,
        device: str | None = None,
        threshold: float = 0.3,
        max_tokens: int | None = None,
        batch_size: int = 16,
        half_precision: bool = False,
    ) -> None:
        super().__init__(source, device=device, threshold=threshold, max_tokens=max_tokens, batch_size=batch_size)
        self._half_precision = half_precision

    def _load_model(self) -> EmbeddingModel:
        try:
            from FlagEmbedding import BGEM3FlagModel
        except ImportError as error:
            raise MissingExtraError(feature="BGE-M3", extra="bge") from error
        try:
            with without_loading_bar():
                model = BGEM3FlagModel(
                    self._source,
                    devices=[self._device or _device()],
                    use_fp16=self._half_precision,
                    pooling_method="cls",
                )
        except Exception as error:  # a hub, a config file or a damaged weight file may raise anything
            reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
            raise ModelLoadError(
                f"The embedding model {self._source} could not be loaded by FlagEmbedding: {reason[:300]}. Give the "
                f"folder of BGE-M3 or its hub name ({BGE_M3}); `--embedder all-minilm-l6-v2` needs neither a hub nor "
                "this package."
            ) from error
        return _measured(model, self._source, self._max_tokens)


def is_bge_m3(source: str | Path) -> bool:
    """Return whether a name or a folder is BGE-M3's."""
    if str(source).lower() == BGE_M3.lower():
        return True
    return (Path(source).expanduser() / _HEADS).is_file()


class _DenseM3:
    """FlagEmbedding's model with the two methods of sentence-transformers' models. It has no prompts."""

    def __init__(self, model: Any, max_tokens: int) -> None:
        self._model = model
        self._max_tokens = max_tokens

    def encode(self, texts: Sequence[str], batch_size: int, show_progress_bar: bool = False) -> np.ndarray:
        """Return the dense vectors (n, dimension)."""
        dense = self._model.encode(
            list(texts),
            batch_size=batch_size + 1,  # FlagEmbedding shows a progress bar for a full batch
            max_length=self._max_tokens,
            return_dense=True,
            return_sparse=False,
            return_colbert_vecs=False,
        )["dense_vecs"]
        return np.asarray(dense, dtype=np.float32)

    encode_document = encode_query = encode


def _measured(model: Any, source: str, asked: int | None) -> EmbeddingModel:
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ModelLoadError(
            f"The embedding model {source} has no fast tokenizer, so a text cannot be cut to its maximum length "
            "exactly. Use a folder that holds its tokenizer.json."
        )
    backend = type(backend).from_str(backend.to_str())  # our own copy: FlagEmbedding switches truncation on and off
    backend.no_truncation()
    backend.no_padding()
    config = model.model.model.config
    # XLM-RoBERTa numbers positions after the padding index, so that many rows of its table are never used.
    own = int(config.max_position_embeddings) - int(config.pad_token_id or 0) - 1
    max_tokens = own if asked is None else asked
    overhead = len(backend.encode("", add_special_tokens=True).ids)
    if not overhead + _LEAST_ROOM <= max_tokens <= own:
        raise ConfigurationError(
            f"max_tokens={max_tokens}: the embedding model {source} takes {overhead + _LEAST_ROOM} to {own} tokens at "
            "once"
        )
    windows = Windows(backend, max_tokens - overhead)
    dense = _DenseM3(model, max_tokens)
    dimension = dense.encode([""], batch_size=1).shape[1]
    settings = ("bge-m3 dense cls", repr(model.model.model.config), backend.to_str(), str(max_tokens))
    fingerprint = weights_digest(settings, model.model.model.state_dict())
    return EmbeddingModel(dense, fingerprint, max_tokens, dimension, windows, windows)


def _device() -> str:
    import torch

    return "cuda:0" if torch.cuda.is_available() else "cpu"
