"""Which methods show in a trace: the endpoints do, and what they are made of does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from llama_index_instrumentation.dispatcher import DISPATCHER_SPAN_DECORATED_ATTR

_Method = TypeVar("_Method", bound=Callable[..., Any])


def no_span(method: _Method) -> _Method:
    """Keep LlamaIndex from making a span of every call of a method that its base class declares abstract.

    Tracers show each span of an LLM as a call of the model.
    """
    setattr(method, DISPATCHER_SPAN_DECORATED_ATTR, True)  # what it marks the methods with that have a span already
    return method
