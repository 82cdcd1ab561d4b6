"""The exception tree. Every error says what was given, the rule, and the way out.

RapidError
├── ConfigurationError                   a setting or a combination of settings that cannot work
├── PromptError                          an empty document, an empty question, a span outside the text
│   └── DocumentError                    a file that gives no text: damaged, encrypted, binary, empty, too large
├── ContextOverflowError                 more tokens than the model's context window
├── ModelLoadError                       a file or a name that is no usable model
│   ├── UnsupportedModelError            a model whose layers this engine cannot run exactly
│   ├── VocabularyMismatchError          a drafter with another tokenizer than the target's
│   └── DownloadError                    a packaged model that could not be fetched or failed its checksum
├── IncompleteOutputError                a structured answer that was cut off, or that its class does not accept
├── HostPartError                        a part that the caller supplied (an embedder, a retriever, ...) failed
├── OutOfMemoryError (MemoryError)       a device without room for a model, its caches or a step
├── NotANumberError (ArithmeticError)    a model that computed NaN
├── MissingExtraError (ImportError)      an optional package; names the pip command that brings it
├── CacheError                           a KV cache that is full, or a saved one that does not fit the model
├── EngineClosedError (RuntimeError)     a request to an engine, or an LLM over one, that has been closed
├── ForkedProcessError (RuntimeError)    an engine that was built before the process was forked
└── NotPicklableError (PicklingError)    something that holds models in memory and cannot go to another process

What is wrong with a request is no `ValueError` and no `TypeError`: frameworks catch those to mean "the model's text
could not be parsed", and go on without the answer (LlamaIndex's `refine` says "Empty Response" then). All of them can
be pickled, so that they reach the user from a worker process, too.
"""

from __future__ import annotations

import functools
import pickle
import re
from typing import Any, ClassVar, Self

__all__ = [
    "CacheError",
    "ConfigurationError",
    "ContextOverflowError",
    "DocumentError",
    "DownloadError",
    "EngineClosedError",
    "ForkedProcessError",
    "HostPartError",
    "IncompleteOutputError",
    "MissingExtraError",
    "ModelLoadError",
    "NotANumberError",
    "NotPicklableError",
    "OutOfMemoryError",
    "PromptError",
    "RapidError",
    "UnsupportedModelError",
    "VocabularyMismatchError",
]


class RapidError(Exception):
    """Base of every error that this package raises on purpose.

    Args:
        arguments: the message.
        code: what of several things went wrong, in a word.

    Attributes:
        code: what went wrong, for programs: it stays as it is while messages change. The class's ("cache"), or a finer
            one ("cache.full").
    """

    code: str = "rapid"

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        words = re.findall("[A-Z][a-z]*", cls.__name__.removesuffix("Error"))
        cls.code = "_".join(words).lower()

    def __init__(self, *arguments: object, code: str = "") -> None:
        super().__init__(*arguments)
        if code:
            self.code = f"{type(self).code}.{code}"


class ConfigurationError(RapidError):
    """A setting, or a combination of settings, that cannot work."""


class PromptError(RapidError):
    """A prompt that cannot be answered: no document, no question, or a span outside the text."""


class DocumentError(PromptError):
    """A file that gives no text.

    Attributes:
        source: the file.
        reason: what is wrong with it, and the way out.
    """

    def __init__(self, source: str, reason: str) -> None:
        self.source = source
        self.reason = reason
        super().__init__(f"{source} {reason}")

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.source, self.reason), vars(self)


class IncompleteOutputError(RapidError):
    """A structured answer that was cut off before it was whole, or that its class does not accept."""


class ContextOverflowError(RapidError):
    """The request needs more tokens than a model's context window holds."""

    def __init__(
        self, *, model: str, prompt_tokens: int, new_tokens: int, context_window: int, estimated: bool = False
    ) -> None:
        self.model = model
        self.prompt_tokens = prompt_tokens
        self.new_tokens = new_tokens
        self.context_window = context_window
        room = context_window - prompt_tokens
        way_out = (
            f"Ask for max_new_tokens <= {room}"
            if room > 0
            else f"Shorten the document by {'about' if estimated else 'at least'} {1 - room:,} tokens or retrieve "
            "fewer passages"
        )
        about = "about " if estimated else ""  # so long that not all of it was counted
        super().__init__(
            f"{model} holds {context_window:,} tokens, but the prompt has {about}{prompt_tokens:,} and max_new_tokens "
            f"asks for {new_tokens:,} more. {way_out}, or use a target with a longer context window."
        )

    def __reduce__(self) -> tuple[object, ...]:
        names = ("model", "prompt_tokens", "new_tokens", "context_window")
        return functools.partial(type(self), **{name: getattr(self, name) for name in names}), (), vars(self)


class HostPartError(RapidError):
    """A part that the caller supplied failed: an embedder, a retriever, a template's function; `__cause__` says how."""


class ModelLoadError(RapidError):
    """A file or a name that could not be loaded as a model."""


class UnsupportedModelError(ModelLoadError):
    """A model whose layers this engine cannot run exactly."""


class VocabularyMismatchError(ModelLoadError):
    """A drafter whose tokenizer gives other ids than the target's."""


class DownloadError(ModelLoadError):
    """A packaged model that could not be fetched, or whose checksum is wrong."""


class OutOfMemoryError(RapidError, MemoryError):
    """A device has no room for a model, a request's caches or a step. What the request held has been freed."""


class NotANumberError(RapidError, ArithmeticError):
    """A model computed logits that are no numbers (NaN)."""


class MissingExtraError(RapidError, ImportError):
    """An optional package is not installed."""

    def __init__(self, *, feature: str, extra: str) -> None:
        self.feature = feature
        self.extra = extra
        super().__init__(f"{feature} needs an optional package: pip install 'rapid-integrations[{extra}]'")

    def __reduce__(self) -> tuple[object, ...]:
        return functools.partial(type(self), feature=self.feature, extra=self.extra), (), vars(self)


class CacheError(RapidError):
    """A KV cache that is full, or a saved one that does not fit."""


class EngineClosedError(RapidError, RuntimeError):
    """A request to an engine, or to an LLM over one, that has been closed; or one that ran when it was closed."""

    def __init__(self, what: str = "this engine") -> None:
        self.what = what
        super().__init__(
            f"{what} has been closed, so it answers nothing any more: build a new one, or close it (leave its `with` "
            "block) only after the last request"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.what,), vars(self)


class ForkedProcessError(RapidError, RuntimeError):
    """Models cannot be used here, because of what this process inherited from the one that it was forked from."""


class NotPicklableError(RapidError, pickle.PicklingError):
    """Something that holds models in memory, or another process's resources, and cannot be written down."""


def shown(value: object) -> str:
    """Return a value for an error message: short, and an object by its class."""
    if isinstance(value, (str, bytes, int, float, bool)) or value is None:
        return f"{value!r:.80}"
    return f"a {type(value).__name__}"


# --- what refuses to be copied --------------------------------------------------------------------------------------


class SharedResource:
    """Base of what exists once: `copy.copy` and `copy.deepcopy` return it itself, and pickling it is refused at once.

    A copy of an index, a chain or an agent that holds one therefore takes no second set of weights.
    """

    settings_of_answers: ClassVar[tuple[str, ...]] = ()
    """Attributes that decide what it does to an answer (see `identity.part_key`); none: it is one by itself."""

    _elsewhere: ClassVar[str] = "build it there, from the names that it was built from here"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce_ex__(self, protocol: object) -> Any:
        raise NotPicklableError(
            f"{type(self).__name__} cannot be pickled: what it holds (models, caches, threads or open files) belongs "
            f"to this process. In another process, {self._elsewhere}"
        )


class OneOwner(SharedResource):
    """Base of what has one user: it cannot be copied either, since two would change it under each other."""

    _copying: ClassVar[str] = "it has one user, and a copy would be changed with it"

    def __copy__(self) -> Self:
        raise NotPicklableError(f"{type(self).__name__} cannot be copied: {self._copying}", code="copy")

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        raise NotPicklableError(f"{type(self).__name__} cannot be copied: {self._copying}", code="copy")


class RunningAnswer(OneOwner):
    """Base of an answer that is being written."""

    _elsewhere = "ask again; what can be sent is the whole answer (`Completion`), or its pieces (`CompletionChunk`)"
    _copying = (
        "it is one running answer, whose pieces come once. Read it to the end (`generate` does) and copy the "
        "`Completion`, or ask again"
    )
