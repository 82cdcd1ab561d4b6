"""The engine's errors where LangChain has a class of its own for them: both in one, so that either is caught.

LangChain's agents go by their own classes: a request that cannot work is not tried three times over, an overflow is
summarised and tried again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from langchain_core import exceptions as langchain_errors

from rapid_integrations import errors

# Newer than the oldest langchain-core that this package takes.
_InvalidRequest: type[Exception] = getattr(
    langchain_errors, "ModelInvalidRequestError", langchain_errors.LangChainException
)
_Timeout: type[Exception] = getattr(langchain_errors, "ModelTimeoutError", langchain_errors.LangChainException)


class ContextOverflowError(errors.ContextOverflowError, langchain_errors.ContextOverflowError):
    """The request needs more tokens than a model's context window holds: the engine's error and LangChain's in one."""


class InvalidSettingError(errors.ConfigurationError, _InvalidRequest):  # type: ignore[misc,valid-type]
    """A setting of a call that cannot work: the engine's error and LangChain's in one."""


class InvalidPromptError(errors.PromptError, _InvalidRequest):  # type: ignore[misc,valid-type]
    """A prompt that cannot be answered: the engine's error and LangChain's in one."""


class RequestTimeoutError(TimeoutError, _Timeout):  # type: ignore[misc,valid-type]
    """A request took longer than `timeout`: Python's error and LangChain's in one."""


@contextmanager
def as_langchain_errors() -> Iterator[None]:
    """Raise the errors of this module in place of the engine's."""
    try:
        yield
    except langchain_errors.LangChainException:
        raise
    except errors.ContextOverflowError as error:
        raise ContextOverflowError(
            model=error.model,
            prompt_tokens=error.prompt_tokens,
            new_tokens=error.new_tokens,
            context_window=error.context_window,
        ) from error
    except errors.ConfigurationError as error:
        raise InvalidSettingError(str(error)) from error
    except errors.PromptError as error:
        raise InvalidPromptError(str(error)) from error
