"""The exception tree. Every error says what was given, the rule, and the way out.

RapidError
├── ConfigurationError                   a setting or a combination of settings that cannot work
├── PromptError                          an empty document, an empty question, a span outside the text
│   └── DocumentError                    a file that gives no text: damaged, encrypted, binary, empty, too large
├── ContextOverflowError                 more tokens than the model's context window
├── ModelLoadError                       a file or a name that is not a usable model
│   ├── UnsupportedModelError            a model whose layers this engine cannot run exactly
│   ├── VocabularyMismatchError          a drafter with another tokenizer than the target's
│   └── DownloadError                    a packaged model that could not be fetched or failed its checksum
├── IncompleteOutputError                a structured answer that was cut off, or that its class does not accept
├── HostPartError                        a part that the caller supplied (an embedder, a retriever, ...) failed
├── OutOfMemoryError (MemoryError)       a device without room for a model, its caches or a step
├── NotANumberError (ArithmeticError)    a model that computed NaN
├── MissingExtraError (ImportError)      an optional package is missing; the message has the pip command
├── CacheError                           a KV cache that is full, or a saved one that does not fit the model
├── RemoteError (ConnectionError)        a server that cannot be reached, is late, refuses, or answers something else
├── EngineClosedError (RuntimeError)     a request to an engine, or an LLM over one, that has been closed
├── ForkedProcessError (RuntimeError)    an engine that was built before the process was forked
└── NotPicklableError (PicklingError)    something that holds models in memory and cannot go to another process

An invalid request raises neither `ValueError` nor `TypeError`. Frameworks catch those, take them for model text that
could not be parsed, and go on without the answer (LlamaIndex's `refine` then says "Empty Response"). All errors of the
tree can be pickled, so they also reach the user from a worker process.
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
    "RemoteError",
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


def public_name(error: RapidError) -> str:
    """Return the name of an error's class, or of the public class that it is a kind of."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__name__ in (*__all__, RapidError.__name__))


class ConfigurationError(RapidError):
    """A setting, or a combination of settings, cannot work."""


class PromptError(RapidError):
    """A prompt cannot be answered: it has no document, no question, or a span outside the text."""


class DocumentError(PromptError):
    """A file yields no text.

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
    """A structured answer was cut off before it was complete, or its class does not accept it."""


class ContextOverflowError(RapidError):
    """The request needs more tokens than a model's context window holds.

    Args:
        model: the model's name.
        prompt_tokens, new_tokens, context_window: what was asked for, and what there is.
        estimated: whether `prompt_tokens` was estimated from the beginning of the prompt.
        outside: how many of the prompt's tokens stand outside of its documents; None if that is not known.
    """

    outside: int | None = None  # of an error that an older server has sent

    def __init__(
        self,
        *,
        model: str,
        prompt_tokens: int,
        new_tokens: int,
        context_window: int,
        estimated: bool = False,
        outside: int | None = None,
    ) -> None:
        self.model = model
        self.prompt_tokens = prompt_tokens
        self.new_tokens = new_tokens
        self.context_window = context_window
        self.outside = outside
        room = context_window - prompt_tokens
        over = f"{'about' if estimated else 'at least'} {1 - room:,} tokens"
        if room > 0:
            way_out = f"Ask for max_new_tokens <= {room}"
        elif outside is None or outside < context_window:
            way_out = f"Shorten the document by {over} or retrieve fewer passages"
        elif outside < prompt_tokens:
            way_out = (
                f"{outside:,} of them are not its documents': shorten the question, the instructions or the earlier "
                f"messages, all in all by {over}"
            )
        else:
            way_out = f"Shorten the prompt by {over}"
        about = "about " if estimated else ""  # of a very long prompt, only the beginning is counted
        super().__init__(
            f"{model} holds {context_window:,} tokens, but the prompt has {about}{prompt_tokens:,} and max_new_tokens "
            f"asks for {new_tokens:,} more. {way_out}, or use a target with a longer context window."
        )

    def __reduce__(self) -> tuple[object, ...]:
        names = ("model", "prompt_tokens", "new_tokens", "context_window", "outside")
        return functools.partial(type(self), **{name: getattr(self, name) for name in names}), (), vars(self)


class HostPartError(RapidError):
    """A part that the caller supplied (an embedder, a retriever, a function) failed. `__cause__` is its own error."""


class ModelLoadError(RapidError):
    """A file or a name could not be loaded as a model."""


class UnsupportedModelError(ModelLoadError):
    """This engine cannot run a model's layers exactly."""


class VocabularyMismatchError(ModelLoadError):
    """A drafter's tokenizer gives other ids than the target's."""


class DownloadError(ModelLoadError):
    """A packaged model could not be fetched, or its checksum is wrong."""


class OutOfMemoryError(RapidError, MemoryError):
    """A device has no room for a model, a request's caches or a step. What the request held has been freed."""


class NotANumberError(RapidError, ArithmeticError):
    """A model computed logits that are not numbers (NaN)."""

    @classmethod
    def of_model(cls, name: str) -> NotANumberError:
        """Return the error that names the model and the way out."""
        return cls(
            f"{name} computed logits that are no numbers (NaN): its weights are damaged, or its dtype is too "
            "narrow for what it computes; try dtype='bfloat16' or 'float32'"
        )


class MissingExtraError(RapidError, ImportError):
    """An optional package is not installed."""

    def __init__(self, *, feature: str, extra: str) -> None:
        self.feature = feature
        self.extra = extra
        super().__init__(f"{feature} needs an optional package: pip install 'rapid-integrations[{extra}]'")

    def __reduce__(self) -> tuple[object, ...]:
        return functools.partial(type(self), feature=self.feature, extra=self.extra), (), vars(self)


class CacheError(RapidError):
    """A KV cache is full, or a saved one does not fit the model."""


class RemoteError(RapidError, ConnectionError):
    """A server of a remote engine or drafter could not be reached, was late, refused, or answered something else.

    Its codes are "remote.unreachable", "remote.timeout", "remote.refused", "remote.failed" and "remote.answer".
    """


class EngineClosedError(RapidError, RuntimeError):
    """An engine, or an LLM over one, was closed before or during the request."""

    def __init__(self, what: str = "this engine") -> None:
        self.what = what
        super().__init__(
            f"{what} has been closed, so it accepts no more requests: build a new one, or close it (leave its `with` "
            "block) only after the last request"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.what,), vars(self)


class ForkedProcessError(RapidError, RuntimeError):
    """Models cannot be used in this process, because it was forked from the one that loaded them."""


class NotPicklableError(RapidError, pickle.PicklingError):
    """An object that holds models in memory, or other resources of its process, cannot be pickled."""


def shown(value: object) -> str:
    """Return a value as error messages show it: shortened, and an object by the name of its class."""
    if isinstance(value, (str, bytes, int, float, bool)) or value is None:
        return f"{value!r:.80}"
    return f"a {type(value).__name__}"


# --- objects that cannot be pickled or copied -----------------------------------------------------------------------


class SharedResource:
    """Base of objects that exist once: copying one returns the object itself, and pickling it raises an error.

    A copy of an index, a chain or an agent that holds one therefore takes no second set of weights.
    """

    settings_of_answers: ClassVar[tuple[str, ...]] = ()
    """Attributes that answers depend on (see `identity.part_key`). Without any, each object counts as different."""

    _elsewhere: ClassVar[str] = "build it anew from the same names"

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
    """Base of objects with one user. They cannot be copied either, because a copy would share their state."""

    _copying: ClassVar[str] = "it has one user, and a copy would share its state"

    def __copy__(self) -> Self:
        raise NotPicklableError(f"{type(self).__name__} cannot be copied: {self._copying}", code="copy")

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        raise NotPicklableError(f"{type(self).__name__} cannot be copied: {self._copying}", code="copy")


class RunningAnswer(OneOwner):
    """Base of an answer that is being written."""

    _elsewhere = "ask again, or send the whole answer (`Completion`) or its pieces (`CompletionChunk`) there"
    _copying = (
        "it is one running answer, and its pieces come only once. Read it to the end (`generate` does) and copy the "
        "`Completion`, or ask again"
    )
