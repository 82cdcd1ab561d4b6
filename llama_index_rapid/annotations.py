"""What of a prompt is context and what is the question, carried from the template to the model.

Query engines call `llm.predict(template, context_str=..., query_str=...)`, which renders the template before it calls
`chat` or `complete`. The values are known only there, so the rendered text carries what became of them: a message in
its `additional_kwargs`, a string as an `AnnotatedText`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import BasePromptTemplate, SelectorPromptTemplate

from llama_index_rapid.template_rendering import locate_documents
from llama_index_rapid.template_variables import Roles, roles_of
from rapid_integrations.prompt import Prompt
from rapid_integrations.prompt.segmentation import MAX_QUERY_CHARACTERS, MIN_CONTEXT_CHARACTERS, Span

ANNOTATION = "rapid"  # key in ChatMessage.additional_kwargs
TEMPLATE = "template"  # how the parts of such a prompt came to be known

_RULES = re.compile(r"[-=*]{5,}|\ue0f0\d+\ue0f1")


@dataclass(frozen=True)
class Parts:
    """What is known of a text.

    Attributes:
        spans: where its context stands; empty where it holds none, or none is known.
        query: the question; None if it is not known.
        known: whether the text holds no other context than `spans`; if not, it is looked for.
        json_schema: of the answer that LlamaIndex is going to parse; None for text.
        segmentation: how the spans came to be known.
    """

    spans: tuple[Span, ...] = ()
    query: str | None = None
    known: bool = False
    json_schema: dict[str, Any] | None = None
    segmentation: str = TEMPLATE


class AnnotatedText(str):
    """A rendered prompt that knows its parts. A `str` in every other respect."""

    parts: Parts

    def __new__(cls, text: str, parts: Parts) -> AnnotatedText:
        """Return `text` with its parts."""
        made = super().__new__(cls, text)
        made.parts = parts
        return made


@dataclass(frozen=True)
class Filled:
    """A template and the values of its variables, its functions called."""

    template: BasePromptTemplate
    values: Mapping[str, Any]
    roles: Roles


def fill(prompt: BasePromptTemplate, arguments: Mapping[str, Any], llm: BaseLLM) -> Filled:
    """Return the template that `llm` gets of `prompt`, with all values that it prints."""
    template = prompt.select(llm=llm) if isinstance(prompt, SelectorPromptTemplate) else prompt
    values = {**template.kwargs, **arguments}
    if template.function_mappings:
        values = template._map_function_vars(values)
        template = template.model_copy(update={"function_mappings": {}})
    return Filled(template, values, roles_of(template, values))


def parts_of(filled: Filled, texts: Sequence[str], render: Callable[[Mapping[str, Any]], Sequence[str]]) -> list[Parts]:
    """Return the parts of each of `texts`, which `render(filled.values)` gave."""
    roles = filled.roles
    query = None if roles.question is None else str(filled.values[roles.question]).strip() or None
    if roles.documents:
        found = locate_documents(texts, roles.documents, filled.values, render)
        if any(found.spans) and (query := query or _as_question(found.own)):
            return [Parts(spans, query, known=True) for spans in found.spans]
    # A selector's, a judge's or a query writer's template: all of it is read whole, however much of it looks like a
    # document. Unless a whole prompt was put in as the question.
    alone = query is None or len(query) < MIN_CONTEXT_CHARACTERS or roles.question in roles.whole
    known = bool(roles.whole) and not roles.documents and alone
    return [Parts((), query, known) for _ in texts]


def annotate(messages: Sequence[ChatMessage], parts: Sequence[Parts]) -> list[ChatMessage]:
    """Return the messages with what is known of them; those without context say so if any other has some."""
    holds = any(each.spans for each in parts)
    return [
        annotated(message, each) if each.spans or each.json_schema or not holds else message
        for message, each in zip(messages, parts, strict=True)
    ]


def annotated(message: ChatMessage, parts: Parts) -> ChatMessage:
    """Return the message with what is known of it."""
    if parts == Parts():
        return message
    annotation = {
        "context_spans": [list(span) for span in parts.spans],
        "query": parts.query,
        "known": parts.known,
        "json_schema": parts.json_schema,
        "segmentation": parts.segmentation,
    }
    return message.model_copy(update={"additional_kwargs": {**message.additional_kwargs, ANNOTATION: annotation}})


def prompt_of(text: str, parts: Parts) -> Prompt | str:
    """Return the text with what is known of it."""
    if parts.spans or parts.known:
        return Prompt.retrieved(str(text), parts.spans, parts.query, parts.segmentation)
    return str(text) if parts.query is None else Prompt(text=str(text), query=parts.query)


def annotation_of(message: ChatMessage) -> Parts:
    """Return what is known of a message, as far as its text is still the one that was annotated."""
    annotation = message.additional_kwargs.get(ANNOTATION)
    if not isinstance(annotation, Mapping):
        return Parts()
    given = [(int(start), int(end)) for start, end in annotation.get("context_spans", ())]
    length = len(message.content or "")
    spans = tuple((start, end) for start, end in given if start < end <= length)
    known = bool(spans) if given else bool(annotation.get("known"))
    method = annotation.get("segmentation") or TEMPLATE
    return Parts(spans, annotation.get("query"), known, annotation.get("json_schema"), method)


def content_of(message: ChatMessage) -> Prompt | str:
    """Return what a message says, with what is known of it."""
    return prompt_of(message.content or "", annotation_of(message))


def _as_question(own: str) -> str | None:
    """Return what a template without a question asks for: its own text, an instruction such as "Write a summary"."""
    words = " ".join(_RULES.sub(" ", own).split()).strip(" .,:;")
    return words[:MAX_QUERY_CHARACTERS] or None
