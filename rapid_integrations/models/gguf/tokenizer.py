"""The tokenizer of a GGUF file.

transformers reads files, too, but has other tokens for many: those whose split it does not know, control tokens outside
of GPT-2's alphabet, the user's own tokens with blanks in them, and texts behind a control token.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from rapid_integrations.errors import UnsupportedModelError
from rapid_integrations.models.folder_kinds import read_json
from rapid_integrations.models.gguf.byte_level import byte_level
from rapid_integrations.models.gguf.header import GgufHeader
from rapid_integrations.models.gguf.sentencepiece import by_merges, by_scores
from rapid_integrations.models.gguf.splits import BEGIN_WITH_BOS, SPLITS, UNSPLIT, split_of
from rapid_integrations.models.gguf.token_list import TokenList, token_list

_BYTES, _SENTENCEPIECE, _GEMMA_4 = "gpt2", "llama", "gemma4"  # values of tokenizer.ggml.model
_WAY_OUT = (
    "Put the model's tokenizer.json beside the file, which is then taken in place of the file's own, or take the "
    "model's safetensors"
)


def tokenizer_of(header: GgufHeader) -> Any:
    """Return the tokenizer of a file, as transformers' `PreTrainedTokenizerFast`.

    A tokenizer.json beside the file is taken in its place.

    Raises:
        ModelLoadError: the file's tokenizer is damaged.
        UnsupportedModelError: it is of a kind, or splits texts in a way, that is not known here.
    """
    from transformers import PreTrainedTokenizerFast

    folder = header.path.parent
    if _beside(header):
        return PreTrainedTokenizerFast.from_pretrained(folder, gguf_file=header.path.name, local_files_only=True)
    require_known(header)
    tokens = token_list(header)
    kind = header.metadata["tokenizer.ggml.model"]
    split = split_of(header.metadata.get("tokenizer.ggml.pre"), header.architecture)
    if kind == _SENTENCEPIECE:
        backend, begins_with_bos = by_scores(header, tokens), True
    elif kind == _GEMMA_4 or split in UNSPLIT:
        backend, begins_with_bos = by_merges(header, tokens), True
    else:
        if split is None:
            _say_what_is_guessed(header)
        backend, begins_with_bos = byte_level(header, tokens, split or "gpt-2"), split in BEGIN_WITH_BOS
    place = {"name_or_path": str(folder), "is_local": True, "local_files_only": True}
    settings = _settings(header, tokens, begins_with_bos)
    return PreTrainedTokenizerFast(tokenizer_object=_NotCopied(backend), **place, **settings)


def require_known(header: GgufHeader) -> None:
    """Refuse a tokenizer that would give other tokens here than in training.

    Raises:
        UnsupportedModelError: its kind or its way to split texts is not known.
    """
    if _beside(header):
        return
    kind, name = (header.metadata.get(f"tokenizer.ggml.{key}") for key in ("model", "pre"))
    if kind not in (_BYTES, _SENTENCEPIECE, _GEMMA_4):
        raise UnsupportedModelError(
            f"{header.path} has a tokenizer of the kind {kind!r} (tokenizer.ggml.model), and only those of the kinds "
            f"'{_BYTES}', '{_SENTENCEPIECE}' and '{_GEMMA_4}' are read. {_WAY_OUT}"
        )
    split = split_of(name, header.architecture)
    if kind == _BYTES and split is not None and split not in {*SPLITS, *UNSPLIT}:
        raise UnsupportedModelError(
            f"{header.path} splits texts in a way that is not known here (tokenizer.ggml.pre is {name!r}), so words "
            f"and numbers could have other tokens than in training. {_WAY_OUT}"
        )


def _beside(header: GgufHeader) -> bool:
    return (header.path.parent / "tokenizer.json").is_file()


def _say_what_is_guessed(header: GgufHeader) -> None:
    name = header.metadata.get("tokenizer.ggml.pre")
    warnings.warn(
        f"{header.path} does not say how the model splits a text (tokenizer.ggml.pre is {name!r}, as in files from "
        "before May 2024). It is split as GPT-2 does, so words and numbers may have other tokens than in training. "
        f"{_WAY_OUT}, or a file that was converted later",
        stacklevel=5,
    )


def _settings(header: GgufHeader, tokens: TokenList, begins_with_bos: bool) -> dict[str, Any]:
    """Return what a file says beside the tokens, as arguments of transformers' tokenizers."""
    settings: dict[str, Any] = {"bos_token": None, "eos_token": None, "unk_token": None, "pad_token": None}
    for role, index in tokens.roles.items():
        token = tokens.added(index)
        settings[f"{role}_token"] = token if token.rstrip else token.content
    for name, usual in (("add_bos_token", begins_with_bos), ("add_eos_token", False)):
        said = header.metadata.get(f"tokenizer.ggml.{name}")
        settings[name] = bool(said) if isinstance(said, int) else usual
    template = header.metadata.get("tokenizer.chat_template") or _template_beside(header.path.parent)
    return settings if template is None else settings | {"chat_template": template}


def _template_beside(folder: Path) -> Any:
    """Return the chat template that lies beside a file, which may have none itself."""
    if (path := folder / "chat_template.jinja").is_file():
        return path.read_text()
    if (path := folder / "tokenizer_config.json").is_file():
        return read_json(path).get("chat_template")
    return None


class _NotCopied:
    """Gives a `tokenizers.Tokenizer` to transformers, whose copy of a large one would take half a second."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def __deepcopy__(self, memo: Any) -> Any:
        return self._backend
