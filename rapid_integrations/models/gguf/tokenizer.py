"""The tokenizer of a GGUF file.

transformers converts it. What `byte_level` knows is converted here with the same result, in a quarter of the time:
transformers reads tokens one by one from a memory map, and imports the tokenizers of other families.

A file names the way in which a text is split before bytes are merged. transformers splits as GPT-2 where it does not
know the name, which gives other tokens than the model was trained on.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from rapid_integrations.models.gguf.byte_level import (
    AS_GPT_2,
    AS_LLAMA_3,
    LLAMA_3_SPLIT,
    SINGLE_DIGITS,
    UNKNOWN_TO_TRANSFORMERS,
    WHOLE_WORDS,
    byte_level,
    splitting,
)
from rapid_integrations.models.gguf.header import GgufHeader

# Beginnings of names of files that transformers reads if they lie beside a GGUF file.
_READ_BESIDE = (
    *("added_tokens", "additional_chat_templates", "chat_template", "config.json", "merges", "special_tokens_map"),
    *("spiece", "tekken", "tiktoken", "tokenizer", "vocab"),
)


def tokenizer_of(header: GgufHeader) -> Any:
    """Return the tokenizer of a file, as transformers' `PreTrainedTokenizerFast`.

    AutoTokenizer would read the whole file with the gguf package first, which takes seconds.
    """
    from transformers import PreTrainedTokenizerFast

    folder = header.path.parent
    if not _has_more(folder) and (found := byte_level(header)) is not None:
        backend, settings = found
        place = {"name_or_path": str(folder), "is_local": True, "local_files_only": True}
        return PreTrainedTokenizerFast(tokenizer_object=_NotCopied(backend), **place, **settings)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, gguf_file=header.path.name, local_files_only=True)
    return splitting_as_trained(tokenizer, header)


def splitting_as_trained(tokenizer: Any, header: GgufHeader) -> Any:
    """Let a tokenizer that transformers has converted split a text as the file says; return it."""
    from tokenizers import Regex, pre_tokenizers

    name = header.metadata.get("tokenizer.ggml.pre")
    if name in WHOLE_WORDS:
        tokenizer.backend_tokenizer.model.ignore_merges = True
    if name in UNKNOWN_TO_TRANSFORMERS:
        tokenizer.backend_tokenizer.pre_tokenizer = splitting(name)
        return tokenizer
    split: pre_tokenizers.PreTokenizer
    if name in AS_LLAMA_3:
        split = pre_tokenizers.Split(Regex(LLAMA_3_SPLIT), behavior="isolated")
    elif name in SINGLE_DIGITS:
        split = pre_tokenizers.Digits(individual_digits=True)
    else:
        _say_what_is_guessed(tokenizer, header)
        return tokenizer
    behind = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=name in SINGLE_DIGITS)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, behind])
    return tokenizer


def _say_what_is_guessed(tokenizer: Any, header: GgufHeader) -> None:
    """Warn of a name that nobody knows: transformers has split as GPT-2 then."""
    from tokenizers import pre_tokenizers

    name, found = header.metadata.get("tokenizer.ggml.pre"), tokenizer.backend_tokenizer.pre_tokenizer
    as_gpt_2 = isinstance(found, pre_tokenizers.ByteLevel) and found.use_regex
    if header.metadata.get("tokenizer.ggml.model") == "gpt2" and as_gpt_2 and name not in AS_GPT_2:
        warnings.warn(
            f"{header.path}: how the model splits a text is not known here (tokenizer.ggml.pre is {name!r}). It is "
            "split as GPT-2 does, so some words and numbers may have other tokens than in training. The model's "
            "safetensors have its own tokenizer",
            stacklevel=5,
        )


class _NotCopied:
    """Gives a `tokenizers.Tokenizer` to transformers, whose copy of a large one would take half a second."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def __deepcopy__(self, memo: Any) -> Any:
        return self._backend


def _has_more(folder: Path) -> bool:
    return any(path.name.startswith(_READ_BESIDE) for path in folder.iterdir())
