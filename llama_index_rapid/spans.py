"""Control over which methods appear in a trace: the endpoints do, their inner methods do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from llama_index_instrumentation.dispatcher import DISPATCHER_SPAN_DECORATED_ATTR

_Method = TypeVar("_Method", bound=Callable[..., Any])


def no_span(method: _Method) -> _Method:
    """Keep LlamaIndex from making a span for every call of a method that its base class declares abstract.

    Tracers show each span of an LLM as a call of the model.
    """
    setattr(method, DISPATCHER_SPAN_DECORATED_ATTR, True)  # LlamaIndex's mark for methods that already have a span
    return method
