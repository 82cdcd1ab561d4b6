"""Annotations of context and question, carried from the template to the model.

Query engines call `llm.predict(template, context_str=..., query_str=...)`, which renders the template before it calls
`chat` or `complete`. Only that step knows the values, so the rendered text carries their positions: a message in its
`additional_kwargs`, a string as an `AnnotatedText`.
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
from llama_index_rapid.template_variables import Roles, is_asked_by_name, is_given, roles_of
from rapid_integrations.prompt import Prompt
from rapid_integrations.prompt.segmentation import MAX_QUERY_CHARACTERS, MIN_CONTEXT_CHARACTERS, Span
from rapid_integrations.prompt.tasks import ends_asking, question_in, wants_all_of_it

ANNOTATION = "rapid"  # key in ChatMessage.additional_kwargs
TEMPLATE = "template"  # the name of this way to find the parts of a prompt

_RULES = re.compile(r"[-=*]{5,}|\ue0f0\d+\ue0f1")


@dataclass(frozen=True)
class Parts:
    """The known parts of a text.

    Attributes:
        spans: the spans of its context; empty if it has none, or none is known.
        query: the question; None if unknown.
        known: whether `spans` are all of the text's context. If not, the engine searches for more.
        json_schema: the schema of the answer that LlamaIndex will parse; None for plain text.
        segmentation: how the spans were found.
    """

    spans: tuple[Span, ...] = ()
    query: str | None = None
    known: bool = False
    json_schema: dict[str, Any] | None = None
    segmentation: str = TEMPLATE


class AnnotatedText(str):
    """A rendered prompt with its parts. In every other respect it is a `str`."""

    parts: Parts

    def __new__(cls, text: str, parts: Parts) -> AnnotatedText:
        """Return `text` with its parts."""
        made = super().__new__(cls, text)
        made.parts = parts
        return made


@dataclass(frozen=True)
class Filled:
    """A template and the values of its variables. Functions among them have been called."""

    template: BasePromptTemplate
    values: Mapping[str, Any]
    roles: Roles


def fill(prompt: BasePromptTemplate, arguments: Mapping[str, Any], llm: BaseLLM) -> Filled:
    """Return the template that `prompt` selects for `llm`, and all values that fill it."""
    template = prompt.select(llm=llm) if isinstance(prompt, SelectorPromptTemplate) else prompt
    values = {**template.kwargs, **arguments}
    if template.function_mappings:
        values = template._map_function_vars(values)
        template = template.model_copy(update={"function_mappings": {}})
    return Filled(template, values, roles_of(template, values))


def parts_of(filled: Filled, texts: Sequence[str], render: Callable[[Mapping[str, Any]], Sequence[str]]) -> list[Parts]:
    """Return the parts of each of `texts`, which are the result of `render(filled.values)`."""
    roles = filled.roles
    query = None if roles.question is None else str(filled.values[roles.question]).strip() or None
    if roles.documents:
        found = locate_documents(texts, roles.documents, filled.values, render)
        if not is_asked_by_name(roles) and (query is None or not ends_asking(query)):
            if is_given(filled.template, roles) and wants_all_of_it(found.own):
                return [Parts(known=True) for _ in texts]  # a translation, for instance, leaves nothing out
            if query is None and not roles.documents_by_name and not question_in(found.own):
                return [Parts() for _ in texts]  # a mail, or what a user says to a chatbot: it may itself be what asks
        if any(found.spans) and (query := query or _as_question(found.own)):
            return [Parts(spans, query, known=True) for spans in found.spans]
    # In the template of a selector, a judge or a query writer, nothing is compressed, even if a part looks like a
    # document. The exception is a whole prompt that was given as the question.
    alone = query is None or len(query) < MIN_CONTEXT_CHARACTERS or roles.question in roles.whole
    known = bool(roles.whole) and not roles.documents and alone
    return [Parts((), query, known) for _ in texts]


def annotate(messages: Sequence[ChatMessage], parts: Sequence[Parts]) -> list[ChatMessage]:
    """Return the messages with their annotations. If one has context, those without are marked as having none."""
    holds = any(each.spans for each in parts)
    return [
        annotated(message, each) if each.spans or each.json_schema or not holds else message
        for message, each in zip(messages, parts, strict=True)
    ]


def annotated(message: ChatMessage, parts: Parts) -> ChatMessage:
    """Return the message with an annotation of its parts."""
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
    """Return the text as a `Prompt` with its parts, or unchanged if none is known."""
    if parts.spans or parts.known:
        return Prompt.retrieved(str(text), parts.spans, parts.query, parts.segmentation)
    return str(text) if parts.query is None else Prompt(text=str(text), query=parts.query)


def annotation_of(message: ChatMessage) -> Parts:
    """Return the parts of a message from its annotation. Spans beyond the end of a shortened text are dropped."""
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
    """Return a message's text with its annotated parts."""
    return prompt_of(message.content or "", annotation_of(message))


def _as_question(own: str) -> str | None:
    """Return the question of a template without one: its own text, which is an instruction ("Write a summary")."""
    words = " ".join(_RULES.sub(" ", own).split()).strip(" .,:;")
    return words[:MAX_QUERY_CHARACTERS] or None
