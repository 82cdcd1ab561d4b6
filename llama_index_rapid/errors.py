"""Errors that LlamaIndex would swallow.

Its default synthesizer catches `ValueError` and `TypeError` around every call of the LLM, logs them as an answer that
could not be parsed, and goes on without the answer. This package's own errors are neither
(`rapid_integrations.errors`). `reaching_the_caller` also translates errors of the caller's own parts, so that they
reach the caller. `raised_within` collects errors that an agent would return as an answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rapid_integrations.errors import HostPartError, RapidError

_raised: ContextVar[list[BaseException] | None] = ContextVar("rapid_raised", default=None)


@contextmanager
def reaching_the_caller(doing: str) -> Iterator[None]:
    """Raise `HostPartError` instead of a `ValueError` or a `TypeError`.

    Args:
        doing: the subject of the message, such as "a function of the prompt template".
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
    """Yield a list that collects the errors of requests in the block, from all threads and tasks of its context."""
    errors: list[BaseException] = []
    token = _raised.set(errors)
    try:
        yield errors
    finally:
        _raised.reset(token)


def _remember(error: BaseException) -> None:
    if (errors := _raised.get()) is not None:
        errors.append(error)
