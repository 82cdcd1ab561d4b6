"""Errors that are both the engine's and LangChain's, so that `except` clauses for either catch them.

LangChain's agents react to their own classes. They do not retry an invalid request, and they summarise the conversation
after an overflow before they retry.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from langchain_core import exceptions as langchain_errors

from rapid_integrations import errors

# The oldest supported langchain-core does not have these classes.
_InvalidRequest: type[Exception] = getattr(
    langchain_errors, "ModelInvalidRequestError", langchain_errors.LangChainException
)
_Timeout: type[Exception] = getattr(langchain_errors, "ModelTimeoutError", langchain_errors.LangChainException)


class ContextOverflowError(errors.ContextOverflowError, langchain_errors.ContextOverflowError):
    """The request needs more tokens than a model's context window holds. Both the engine's error and LangChain's."""


class InvalidSettingError(errors.ConfigurationError, _InvalidRequest):  # type: ignore[misc,valid-type]
    """A setting of a call cannot work. Both the engine's error and LangChain's."""


class InvalidPromptError(errors.PromptError, _InvalidRequest):  # type: ignore[misc,valid-type]
    """A prompt cannot be answered. Both the engine's error and LangChain's."""


class RequestTimeoutError(TimeoutError, _Timeout):  # type: ignore[misc,valid-type]
    """A request took longer than `timeout`. Both Python's error and LangChain's."""


@contextmanager
def as_langchain_errors() -> Iterator[None]:
    """Replace the engine's errors with those of this module."""
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
            outside=error.outside,
        ) from error
    except errors.ConfigurationError as error:
        raise _with_code(InvalidSettingError(str(error)), error) from error
    except errors.PromptError as error:
        raise _with_code(InvalidPromptError(str(error)), error) from error


def _with_code(said: errors.RapidError, error: errors.RapidError) -> errors.RapidError:
    """Give an error the code of the engine's, which programs look at."""
    said.code = error.code
    return said
