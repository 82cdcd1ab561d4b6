"""Speculative RAG (arXiv 2407.08223) as the last link of a chain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.documents import Document
from langchain_core.prompts import BasePromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda

from langchain_rapid.chat_model import ChatRapid
from langchain_rapid.errors import as_langchain_errors
from langchain_rapid.messages import with_texts
from langchain_rapid.read_ahead import bound_model
from rapid_integrations.engine.speculative_rag.settings import SpeculativeRAGConfig
from rapid_integrations.errors import ConfigurationError, shown

if TYPE_CHECKING:
    from rapid_integrations.engine.speculative_rag import SpeculativeAnswer, SpeculativeRAG

_SETTINGS = ("sampling", "apply_chat_template", "chat_template_kwargs", "on_progress")


def speculative_rag(
    llm: Runnable[Any, Any],
    prompt: BasePromptTemplate[Any],
    *,
    context: str = "context",
    question: str = "question",
    return_drafts: bool = False,
    **config: Any,
) -> Runnable[Mapping[str, Any], Any]:
    """Return a runnable that drafts from several subsets of the documents at once; the target chooses one draft.

        chain = {"context": retriever, "question": RunnablePassthrough()} | speculative_rag(llm, prompt, drafts=5)

    Its input has a value for each of the prompt's variables. It replaces `prompt | llm | StrOutputParser()`. Settings
    of a call (`max_tokens=64`) are those of its drafts. The engine's drafter writes the drafts (the target, if it
    drafts for itself). No model reads all documents.

    Args:
        llm: a local `RapidLLM` or `ChatRapid`, or one with bound settings.
        prompt: the template of a draft.
        context: the name of the variable for the documents. Its value is a list of documents or texts.
        question: the name of the variable for the question.
        return_drafts: whether the output is the `SpeculativeAnswer` with all drafts and scores, not only the text.
        config: settings of `SpeculativeRAGConfig`.

    Raises:
        ConfigurationError: `llm` is something else, or a setting is unknown or has a wrong value.
    """
    model, bound = bound_model(llm, "speculative_rag")
    settings = SpeculativeRAGConfig(**config)

    def asking(values: Mapping[str, Any], of_call: Mapping[str, Any]) -> tuple[SpeculativeRAG, dict[str, Any]]:
        from rapid_integrations.engine.speculative_rag import SpeculativeRAG

        passages, asked = _passages(values.get(context), context), _question(values.get(question), question)

        def request(text: str) -> Any:
            filled = prompt.invoke({**values, context: text})
            given: Any = filled.to_messages() if isinstance(model, ChatRapid) else with_texts(filled).to_string()
            return model._request(given, None, {**bound, **of_call}, None)

        options = request("").options
        kept = {name: options[name] for name in _SETTINGS if name in options}
        arguments = {
            "passages": passages,
            "question": asked,
            "prompt_of": lambda text: request(text).prompt,
            **kept,
        }
        return SpeculativeRAG(model.rapid_engine, settings), arguments

    def said(answer: SpeculativeAnswer) -> Any:
        return answer if return_drafts else answer.text

    def answer(values: Mapping[str, Any], **of_call: Any) -> Any:
        with as_langchain_errors():
            drafting, arguments = asking(values, of_call)
            return said(drafting.answer(**arguments))

    async def aanswer(values: Mapping[str, Any], **of_call: Any) -> Any:
        with as_langchain_errors():
            drafting, arguments = asking(values, of_call)
            return said(await drafting.aanswer(**arguments))

    return RunnableLambda(answer, aanswer, name="SpeculativeRAG")


def _passages(given: Any, name: str) -> list[str]:
    """Return the texts of documents.

    Raises:
        ConfigurationError: the value is something else.
    """
    if isinstance(given, Sequence) and not isinstance(given, str):
        texts = [each.page_content if isinstance(each, Document) else each for each in given]
        if all(isinstance(text, str) for text in texts):
            return texts
    raise ConfigurationError(
        f"speculative_rag takes a list of documents or texts as {name!r}, not {shown(given)}: leave out the step that "
        "joins them"
    )


def _question(given: Any, name: str) -> str:
    if isinstance(given, str) and given.strip():
        return given
    raise ConfigurationError(f"speculative_rag takes a question as {name!r}, not {shown(given)}: give a text")
