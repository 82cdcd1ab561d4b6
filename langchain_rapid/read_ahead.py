"""Prefilling of documents before the first question about them, for use when documents are indexed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.prompts import BasePromptTemplate
from langchain_core.runnables import Runnable, RunnableBinding

from langchain_rapid.chat_model import ChatRapid
from langchain_rapid.errors import as_langchain_errors
from langchain_rapid.llm import RapidLLM
from langchain_rapid.messages import with_texts
from langchain_rapid.rapid_model import Request
from rapid_integrations.errors import ConfigurationError, shown
from rapid_integrations.outputs import ReadAhead
from rapid_integrations.progress import OnProgress

_ANY = "?"  # in place of a question
_SETTINGS = ("compression", "compressor", "tools", "apply_chat_template", "chat_template_kwargs")


def read_ahead(
    llm: Runnable[Any, Any],
    prompt: BasePromptTemplate[Any],
    values: Mapping[str, Any],
    *,
    question: str = "question",
    on_progress: OnProgress | None = None,
) -> ReadAhead:
    """Prefill what all questions of a chain `prompt | llm` about the same documents begin with.

        read_ahead(llm, prompt, {"context": format_documents(in_document_order(documents))})

    Args:
        llm: a `RapidLLM` or `ChatRapid`, or one with bound settings or tools.
        prompt: the chain's prompt template. Its documents come before its question.
        values: the template's variables, but for the question. The texts are those of the later calls, byte for byte.
        question: the name of the question's variable.
        on_progress: see `RapidEngine.read`.

    Raises:
        ConfigurationError: `llm` is something else, or its engine keeps no caches.
        PromptError, ContextOverflowError: see `RapidEngine.read`.
    """
    model, options = _reading(llm, prompt, values, question)
    with as_langchain_errors():
        return model.rapid_engine.read((), on_progress=on_progress, **options)


async def aread_ahead(
    llm: Runnable[Any, Any],
    prompt: BasePromptTemplate[Any],
    values: Mapping[str, Any],
    *,
    question: str = "question",
    on_progress: OnProgress | None = None,
) -> ReadAhead:
    """Do what `read_ahead` does without blocking the event loop."""
    model, options = _reading(llm, prompt, values, question)
    with as_langchain_errors():
        return await model.rapid_engine.aread((), on_progress=on_progress, **options)


def _reading(
    llm: Runnable[Any, Any], prompt: BasePromptTemplate[Any], values: Mapping[str, Any], question: str
) -> tuple[ChatRapid | RapidLLM, dict[str, Any]]:
    """Return the model and the arguments of `RapidEngine.read`."""
    model, bound = bound_model(llm, "read_ahead")

    def request(asked: str) -> Request:
        filled = prompt.invoke({**values, question: asked})
        given: Any = filled.to_messages() if isinstance(model, ChatRapid) else with_texts(filled).to_string()
        return model._request(given, None, bound, None)

    options = request(_ANY).options
    settings = {name: options[name] for name in _SETTINGS if name in options}
    return model, {"prompt": lambda _, asked: request(asked).prompt, **settings}


def bound_model(llm: Runnable[Any, Any], asking: str) -> tuple[ChatRapid | RapidLLM, dict[str, Any]]:
    """Return the model behind bindings, and what is bound.

    Raises:
        ConfigurationError: it is no model of this package. `asking` is the function that was given it.
    """
    bound: dict[str, Any] = {}
    while isinstance(llm, RunnableBinding):
        bound = {**llm.kwargs, **bound}
        llm = llm.bound
    if not isinstance(llm, (ChatRapid, RapidLLM)):
        raise ConfigurationError(
            f"{asking} takes a ChatRapid or RapidLLM, not {shown(llm)}: give it the model of the chain prompt | llm"
        )
    return llm, bound
