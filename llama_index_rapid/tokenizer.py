"""LlamaIndex counts tokens with one global tokenizer: the target's, so that what it packs into a prompt fits."""

from __future__ import annotations

import functools
from collections.abc import Callable

import llama_index.core
from llama_index.core.utils import set_global_tokenizer


def use_for_counting(encode: Callable[[str], list[int]]) -> None:
    """Make `encode` the global tokenizer unless the user has set one (LlamaIndex's own default does not count)."""
    current = llama_index.core.global_tokenizer
    if current is None or _is_default(current):
        set_global_tokenizer(encode)


def _is_default(tokenizer: object) -> bool:
    """Whether it is what `get_tokenizer` falls back to: tiktoken's encoding for gpt-3.5."""
    owner = getattr(tokenizer.func, "__self__", None) if isinstance(tokenizer, functools.partial) else None
    return type(owner).__module__.startswith("tiktoken")
