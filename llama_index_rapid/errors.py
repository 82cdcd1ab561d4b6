"""Errors that LlamaIndex would swallow.

Its default synthesizer catches `ValueError` and `TypeError` around every call of the LLM, logs them, and goes on
without the answer: to it they are an answer that could not be parsed. What is wrong with a request is neither
(`rapid_integrations.errors`); `reaching_the_caller` turns what the caller's own parts raise into an error that reaches
the caller, too. `raised_within` remembers what an agent has turned into an answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rapid_integrations.errors import HostPartError, RapidError

_raised: ContextVar[list[BaseException] | None] = ContextVar("rapid_raised", default=None)


@contextmanager
def reaching_the_caller(doing: str) -> Iterator[None]:
    """Raise `HostPartError` in place of a `ValueError` or a `TypeError`.

    Args:
        doing: what the block does, for the message.
    """
    try:
        yield
    except RapidError as error:
        _remember(error)
        raise
    except (ValueError, TypeError) as error:
        translated = HostPartError(f"{doing} raised {type(error).__name__}: {error}")
        _remember(translated)
        raise translated from error


@contextmanager
def raised_within() -> Iterator[list[BaseException]]:
    """Yield the errors of requests that are made in the block, in whatever thread or task of its context."""
    errors: list[BaseException] = []
    token = _raised.set(errors)
    try:
        yield errors
    finally:
        _raised.reset(token)


def _remember(error: BaseException) -> None:
    if (errors := _raised.get()) is not None:
        errors.append(error)
