"""A reranker that reads the question and a passage together: a cross-encoder of sentence-transformers."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rapid_integrations.compression.embedding_model import without_loading_bar
from rapid_integrations.compression.passages import Passage
from rapid_integrations.compression.windows import Windows, encodable
from rapid_integrations.errors import ConfigurationError, ModelLoadError, SharedResource
from rapid_integrations.progress import import_progress_bars

_LEAST_ROOM = 8  # tokens of a passage beside the question
_SAFE_LENGTH = 512  # tokens, for a model that states no maximum


class CrossEncoderReranker(SharedResource):
    """Scores passages with a cross-encoder, from a local folder or by its hub name. It is loaded on first use.

    It is a `Rerank`: give it to `Compressor` or `DefaultCompressor`. A passage that is longer than the model reads is
    scored as its best window. Threads may share it.

    Args:
        source: folder or hub name.
        device: torch device, None picks the best one.
        batch_size: pairs of question and window that are scored at once.
        trust_remote_code: run Python code that comes with the model.
    """

    settings_of_answers = ("_source",)

    def __init__(
        self,
        source: str | Path,
        *,
        device: str | None = None,
        batch_size: int = 16,
        trust_remote_code: bool = False,
    ) -> None:
        self._source = str(source)
        self._device = device
        self._batch_size = batch_size
        self._trust_remote_code = trust_remote_code
        self._model: Any = None
        self._lock = threading.Lock()

    def __call__(self, query: str, passages: Sequence[Passage]) -> list[Passage]:
        """Return `passages` with the model's scores, the best first; equal ones keep their order.

        Raises:
            ModelLoadError: the model cannot be loaded, or computes NaN.
            ConfigurationError: the question leaves no room for a passage.
        """
        if not passages:
            return []
        with self._lock:
            if self._model is None:
                self._model = self._load()
            windows = self._windows(query)
            pairs = [(index, piece) for index, each in enumerate(passages) for piece in windows.split(each.text)]
            scores = self._model.predict(
                [(encodable(query), encodable(piece)) for _, piece in pairs],
                batch_size=self._batch_size,
                show_progress_bar=False,
            )
        best = [-math.inf] * len(passages)
        for (index, _), score in zip(pairs, scores, strict=True):
            if math.isnan(float(score)):
                raise ModelLoadError(f"The cross-encoder {self._source} computed NaN; its weights are damaged.")
            best[index] = max(best[index], float(score))
        rescored = [replace(each, score=score) for each, score in zip(passages, best, strict=True)]
        return sorted(rescored, key=lambda passage: -(passage.score or 0.0))

    def _load(self) -> Any:
        try:
            with without_loading_bar():
                import_progress_bars()
                from sentence_transformers import CrossEncoder

                model = CrossEncoder(
                    self._source,
                    device=self._device,
                    num_labels=1,
                    trust_remote_code=self._trust_remote_code,
                    model_kwargs={"use_safetensors": True},
                )
        except Exception as error:  # a hub, a config file or a model's own code may raise anything
            reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
            raise ModelLoadError(
                f"The cross-encoder {self._source} could not be loaded: {reason}. Give the folder or the hub name of a "
                "sentence-transformers cross-encoder with one score, such as cross-encoder/ms-marco-MiniLM-L6-v2."
            ) from error
        if getattr(model.tokenizer, "backend_tokenizer", None) is None:
            raise ModelLoadError(
                f"The cross-encoder {self._source} has no fast tokenizer, so a passage cannot be cut to its maximum "
                "length exactly. Use a model that comes with a tokenizer.json."
            )
        return model

    def _windows(self, query: str) -> Windows:
        """Return the cutter of passages to what the model can read beside `query`."""
        backend = copy.deepcopy(self._model.tokenizer.backend_tokenizer)  # the model keeps switching its truncation
        backend.no_truncation()
        backend.no_padding()
        most = self._model.max_seq_length or _SAFE_LENGTH
        room = most - len(backend.encode(encodable(query), "", add_special_tokens=True).ids)
        if room < _LEAST_ROOM:
            raise ConfigurationError(
                f"the question leaves {room} of the {most} tokens that the cross-encoder {self._source} reads, and a "
                f"passage needs at least {_LEAST_ROOM}: shorten the question, or leave the reranker out"
            )
        return Windows(backend, room)
