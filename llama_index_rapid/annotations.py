"""What of a prompt is context and what is the question, carried from the template to the model.

Query engines call `llm.predict(template, context_str=..., query_str=...)`, which renders the template before it calls
`chat` or `complete`. The values are known only there, so the rendered text carries what became of them: a message in
its `additional_kwargs`, a string as an `AnnotatedText`. A value counts only where it stands verbatim in the text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import BasePromptTemplate

from rapid_integrations.prompt import Prompt

ANNOTATION = "rapid"  # key in ChatMessage.additional_kwargs

CONTEXT_NAMES = ("context_str", "context_msg", "context", "documents")
QUERY_NAMES = ("query_str", "query", "question")


@dataclass(frozen=True)
class Parts:
    """The values that filled a template."""

    contexts: tuple[str, ...] = ()
    query: str | None = None


class AnnotatedText(str):
    """A rendered prompt that knows its parts. A `str` in every other respect."""

    parts: Parts

    def __new__(cls, text: str, parts: Parts) -> AnnotatedText:
        """Return `text` with its parts."""
        made = super().__new__(cls, text)
        made.parts = parts
        return made


def parts_of(prompt: BasePromptTemplate, arguments: Mapping[str, Any]) -> Parts:
    """Return the values of the template's context and question variables, as the template prints them.

    A list (simple_summarize) is printed as Python writes it.
    """
    values = {**prompt.kwargs, **arguments}
    contexts = tuple(str(values[name]) for name in CONTEXT_NAMES if values.get(name))
    query = next((str(values[name]) for name in QUERY_NAMES if str(values.get(name) or "").strip()), None)
    return Parts(contexts, query)


def annotate(messages: Sequence[ChatMessage], parts: Parts) -> list[ChatMessage]:
    """Return the messages, those that hold a context marked with where it stands."""
    return [_annotated(message, parts) for message in messages]


def prompt_of(text: str, parts: Parts) -> Prompt | str:
    """Return the text with the spans of its contexts, or as it is where none of them stands in it."""
    spans = _spans(text, parts.contexts)
    return Prompt(text=text, context_spans=spans, query=parts.query, segmentation="template") if spans else text


def content_of(message: ChatMessage) -> Prompt | str:
    """Return what a message says, with its context spans where it was annotated."""
    text = message.content or ""
    annotation = message.additional_kwargs.get(ANNOTATION)
    if not annotation:
        return text
    spans = tuple((start, end) for start, end in annotation["context_spans"] if start < end <= len(text))
    return Prompt(
        text=text,
        context_spans=spans,
        query=annotation.get("query"),
        segmentation=annotation.get("segmentation", "annotations"),
    )


def _annotated(message: ChatMessage, parts: Parts) -> ChatMessage:
    found = prompt_of(message.content or "", parts)
    if isinstance(found, str):
        return message
    annotation = {
        "context_spans": [list(span) for span in found.context_spans],
        "query": found.query,
        "segmentation": found.segmentation,
    }
    return message.model_copy(update={"additional_kwargs": {**message.additional_kwargs, ANNOTATION: annotation}})


def _spans(text: str, contexts: Sequence[str]) -> tuple[tuple[int, int], ...]:
    spans: list[tuple[int, int]] = []
    for context in contexts:
        start = text.find(context) if context.strip() else -1
        if start >= 0:
            spans.append((start, start + len(context)))
    spans.sort()
    return tuple(span for index, span in enumerate(spans) if index == 0 or span[0] >= spans[index - 1][1])
