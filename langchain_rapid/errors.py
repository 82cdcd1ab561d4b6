"""The engine's errors where LangChain has a class of its own for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from langchain_core import exceptions as langchain_errors

from rapid_integrations import errors


class ContextOverflowError(errors.ContextOverflowError, langchain_errors.ContextOverflowError):
    """The request needs more tokens than a model's context window holds: the engine's error and LangChain's in one."""


@contextmanager
def as_langchain_errors() -> Iterator[None]:
    """Raise `ContextOverflowError` of this module in place of the engine's."""
    try:
        yield
    except errors.ContextOverflowError as error:
        raise ContextOverflowError(
            model=error.model,
            prompt_tokens=error.prompt_tokens,
            new_tokens=error.new_tokens,
            context_window=error.context_window,
        ) from error
