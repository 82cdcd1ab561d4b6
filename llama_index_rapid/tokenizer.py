"""Setting LlamaIndex's global tokenizer, with which it counts tokens, to the target's.

Code that packs a prompt (a prompt helper, a chat memory) first reads the LLM's `metadata` and then takes the global
tokenizer. A `RapidLLM` therefore makes its target's tokenizer the global one whenever its `metadata` is read. Each of
several LLMs is then counted with its own tokenizer.
"""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Callable

import llama_index.core
from llama_index.core.utils import set_global_tokenizer

from rapid_integrations.errors import SharedResource

_SAMPLE = (
    "In 2024, the company's net revenue (excl. VAT) rose by 12.7% to EUR 1,408,311; see § 4.2 and https://example.com. "
    "Der Vorstand beschloss daraufhin außerordentliche Maßnahmen. def f(x): return x ** 2  # 漢字 и кириллица\n"
)
_NEARLY = 0.95  # share of the target's count; with a tokenizer that counts fewer, packed prompts may not fit


class OwnTokenizer(SharedResource):
    """A target's tokenizer, for use as LlamaIndex's global one.

    Args:
        encode: returns the tokens of a text.
        model: the target's name, for messages.
    """

    def __init__(self, encode: Callable[[str], list[int]], model: str) -> None:
        self._encode = encode
        self._model = model
        self._compared: object = None  # the user's tokenizer that was compared last
        self._lock = threading.Lock()

    def __call__(self, text: str) -> list[int]:
        """Return the tokens of `text`."""
        return self._encode(text)

    def use_for_counting(self) -> None:
        """Make this the global tokenizer, unless the user has set one (LlamaIndex's own default does not count as one).

        If the user's tokenizer counts clearly fewer tokens than the target reads, a warning says so once.
        """
        current = llama_index.core.global_tokenizer
        if current is self:
            return
        if current is None or isinstance(current, OwnTokenizer) or _is_default(current):
            set_global_tokenizer(self)
            return
        with self._lock:
            if current is self._compared:
                return
            self._compared = current
        self._warn_of(current)

    def _warn_of(self, users: Callable[[str], list[int]]) -> None:
        theirs, own = len(users(_SAMPLE)), len(self(_SAMPLE))
        if theirs < _NEARLY * own:
            warnings.warn(
                f"LlamaIndex counts tokens with a tokenizer that was set by hand (Settings.tokenizer), which counts "
                f"{theirs} tokens in a sample while {self._model} reads {own}: packed prompts may not fit the context "
                "window. set_global_tokenizer(None) leaves the choice to each RapidLLM; for several LLMs, set the "
                "tokenizer that counts the most tokens",
                stacklevel=4,
            )


def _is_default(tokenizer: object) -> bool:
    """Whether it is the default of `get_tokenizer`: tiktoken's encoding for gpt-3.5."""
    owner = getattr(tokenizer.func, "__self__", None) if isinstance(tokenizer, functools.partial) else None
    return type(owner).__module__.startswith("tiktoken")
