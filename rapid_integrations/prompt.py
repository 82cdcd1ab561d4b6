"""What a request asks: text, which parts of it are retrieved context, and the question. Imports no torch.

`Prompt` is what a user builds; `RenderedPrompt` is the exact text that the target reads (chat template applied) with
the same spans found in it. The drafter's text is that text with the context spans replaced, nothing else changed.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from pydantic import field_validator, model_validator

from rapid_integrations.config import Settings
from rapid_integrations.errors import PromptError
from rapid_integrations.segmentation import MIN_CONTEXT_CHARACTERS, Segmentation, Span, segment

Message: TypeAlias = Mapping[str, Any]
"""A chat message: "role" and "content", the content a string or a `Prompt`; further keys go to the template."""

PromptLike: TypeAlias = "str | Prompt | Sequence[Message]"

ChatTemplate: TypeAlias = Callable[[list[dict[str, Any]]], str]
"""Renders messages to the text that the model reads, the opening of its answer included."""

DEFAULT_TEMPLATE = (
    "Use the following document to answer the question at the end.\n\n{context}\n\nQuestion: {query}\nAnswer:"
)


class Prompt(Settings):
    """A text, the character spans of it that are retrieved context, and the question.

    Args:
        text: what the target reads (before the chat template).
        context_spans: (start, end) character offsets into `text`, in order, without overlap. Empty: they are looked
            for (`rapid_integrations.segmentation`).
        query: the question that retrieval searches for; None: looked for in the text outside of the spans.
        segmentation: how the spans came to be known; reported in the statistics.
    """

    text: str
    context_spans: tuple[Span, ...] = ()
    query: str | None = None
    segmentation: str = "explicit"

    @field_validator("query")
    @classmethod
    def _query_is_not_blank(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("the question is empty; give one, or leave query=None to take it from the text")
        return value

    @model_validator(mode="after")
    def _spans_lie_in_the_text(self) -> Prompt:
        end_before = 0
        for start, end in self.context_spans:
            if not end_before <= start < end <= len(self.text):
                raise ValueError(
                    f"context span ({start}, {end}) must lie in the text (0 to {len(self.text)}), be in order, hold "
                    "at least one character and not overlap the span before it"
                )
            end_before = end
        return self

    @classmethod
    def from_context(cls, context: str | Sequence[str], query: str, template: str = DEFAULT_TEMPLATE) -> Prompt:
        """Put one or more documents and a question into `template`, the documents first.

        They stand before the question so that a second question shares their prefix. Several are set apart by blank
        lines; each is a context span of its own.

        Raises:
            PromptError: no document, an empty one, an empty question, or a template without {context} and {query}.
        """
        contexts = [context] if isinstance(context, str) else list(context)
        for number, text in enumerate(contexts, 1):
            if not text.strip():
                which = "the document" if len(contexts) == 1 else f"document {number} of {len(contexts)}"
                raise PromptError(f"{which} is empty: there is nothing to answer from. Give a text with content")
        if not contexts:
            raise PromptError("no document was given: there is nothing to answer from")
        if not query.strip():
            raise PromptError("the question is empty: ask one, for instance 'What does the report conclude?'")
        if template.count("{context}") != 1 or "{query}" not in template:
            raise PromptError(f"the template {template!r} must hold {{context}} once and {{query}}")
        before, after = (part.replace("{query}", query) for part in template.split("{context}"))
        text, spans = before, []
        for index, document in enumerate(contexts):
            text += "\n\n" if index else ""
            spans.append((len(text), len(text) + len(document)))
            text += document
        return cls(text=text + after, context_spans=tuple(spans), query=query)


@dataclass(frozen=True)
class RenderedPrompt:
    """The text that a model reads, and what stands where in it.

    Attributes:
        text: after the chat template.
        data_spans: text that came from outside (message contents, documents); control tokens in it are data.
        context_spans: the parts that are retrieved context, each within a data span.
        query: the question; "" when none was found (plain decoding).
        segmentation: how the spans were found: "explicit" (or what a `Prompt` says), "delimiters", "heuristic" or
            "plain".
        templated: whether a chat template wrote the control tokens, the first one included.
    """

    text: str
    data_spans: tuple[Span, ...]
    context_spans: tuple[Span, ...]
    query: str
    segmentation: str
    templated: bool

    @property
    def contexts(self) -> tuple[str, ...]:
        """The context spans' texts."""
        return tuple(self.text[start:end] for start, end in self.context_spans)

    def splice(self, replacements: Sequence[str]) -> RenderedPrompt:
        """Return this prompt with each context span replaced; everything else keeps its characters."""
        if len(replacements) != len(self.context_spans):
            raise ValueError(f"{len(replacements)} replacements for {len(self.context_spans)} context spans")
        pieces: list[str] = []
        ends, shifts = [0], [0]  # old end of each span, and characters added or removed up to there
        spans: list[Span] = []
        position = shift = 0
        for (start, end), new in zip(self.context_spans, replacements, strict=True):
            pieces += [self.text[position:start], new]
            spans.append((start + shift, start + shift + len(new)))
            shift += len(new) - (end - start)
            ends.append(end)
            shifts.append(shift)
            position = end
        pieces.append(self.text[position:])

        def follow(offset: int) -> int:
            return offset + shifts[bisect_right(ends, offset) - 1]

        return replace(
            self,
            text="".join(pieces),
            data_spans=tuple((follow(start), follow(end)) for start, end in self.data_spans),
            context_spans=tuple(spans),
        )


def render(prompt: PromptLike, chat_template: ChatTemplate | None) -> RenderedPrompt:
    """Return the text that the target reads, with its context spans and query.

    Args:
        prompt: a string or `Prompt` (one user message, where there is a template), or chat messages.
        chat_template: the model's, or None to give a string to the model as it is.

    Raises:
        PromptError: an empty prompt, malformed messages, or messages without a template to render them.
    """
    if isinstance(prompt, (str, Prompt)):
        if not (prompt if isinstance(prompt, str) else prompt.text).strip():
            raise PromptError("the prompt is empty: give a text, chat messages or a Prompt")
        if chat_template is None:
            return _render_raw(prompt)
        prompt = [{"role": "user", "content": prompt}]
    if chat_template is None:
        raise PromptError("this model has no chat template, so messages cannot be rendered: pass a string or a Prompt")
    return _render_messages(list(prompt), chat_template)


def _render_raw(prompt: str | Prompt) -> RenderedPrompt:
    parts = _segment_content(prompt)
    if parts.context_spans:
        _require_query(parts.query)
    text = prompt if isinstance(prompt, str) else prompt.text
    # Whoever writes a raw prompt may have put control tokens into it; only the retrieved text is data.
    return RenderedPrompt(text, parts.context_spans, parts.context_spans, parts.query, parts.method, templated=False)


def _render_messages(messages: list[Message], chat_template: ChatTemplate) -> RenderedPrompt:
    contents: list[str | Prompt] = []
    for message in messages:
        content = message.get("content") if isinstance(message, Mapping) else None
        if content is None and isinstance(message, Mapping) and message.get("tool_calls"):
            content = ""  # an answer that only calls tools
        if not isinstance(content, (str, Prompt)) or "role" not in message:
            raise PromptError(
                f"a chat message needs a 'role' and a 'content' that is a string or a Prompt; given: {message!r:.200}"
            )
        contents.append(content)
    texts = [content if isinstance(content, str) else content.text for content in contents]
    if not any(text.strip() for text in texts):
        raise PromptError("the prompt is empty: every message is blank")
    plain = [
        dict(message) if message.get("content") is None else {**message, "content": text}
        for message, text in zip(messages, texts, strict=True)
    ]
    text, places = _locate(plain, texts, chat_template)

    segmentations = [_segment_content(content) for content in contents]
    tool_results = _tool_results(messages, texts)
    for index in tool_results:
        segmentations[index] = Segmentation("tool messages", ((0, len(texts[index])),), "")
    holders = _messages_with_context(contents, segmentations, tool_results)
    spans: list[Span] = []
    for holder in holders:
        if (place := places[holder]) is not None and (offset := place.offset) is not None:
            moved = ((offset + start, offset + end) for start, end in segmentations[holder].context_spans)
            clipped = ((max(start, place.data[0]), min(end, place.data[1])) for start, end in moved)
            spans += ((start, end) for start, end in clipped if start < end)
    query = _query_of_messages(messages, contents, segmentations, holders)
    if spans:
        _require_query(query)
    method = segmentations[holders[-1]].method if spans else "plain"
    data = tuple(place.data for place in places if place is not None and place.data[0] < place.data[1])
    return RenderedPrompt(text, data, tuple(spans), query, method, templated=True)


def _segment_content(content: str | Prompt) -> Segmentation:
    if isinstance(content, str):
        return segment(content)
    if content.context_spans:
        query = content.query if content.query is not None else _last_paragraph_outside(content)
        return Segmentation(content.segmentation, content.context_spans, query)
    found = segment(content.text)
    return found if content.query is None else replace(found, query=content.query)


def _last_paragraph_outside(prompt: Prompt) -> str:
    start = prompt.context_spans[-1][1]
    outside = prompt.text[start:] if prompt.text[start:].strip() else prompt.text[: prompt.context_spans[0][0]]
    return outside.strip().rsplit("\n\n", 1)[-1].strip()


def _require_query(query: str) -> None:
    if not query.strip():
        raise PromptError("the question is empty: the prompt is all context. Give Prompt(query=...)")


def _tool_results(messages: Sequence[Message], texts: Sequence[str]) -> list[int]:
    """Return which messages are tools' results, where they are long enough together to be worth compressing.

    An agent's retrieval arrives in them; the last human turn is the question.
    """
    found = [i for i, message in enumerate(messages) if message["role"] == "tool" and texts[i].strip()]
    return found if sum(len(texts[i]) for i in found) >= MIN_CONTEXT_CHARACTERS else []


def _messages_with_context(
    contents: Sequence[str | Prompt], segmentations: Sequence[Segmentation], tool_results: Sequence[int]
) -> list[int]:
    """Return which messages hold the context.

    All whose spans were given, else the tools' results, else the one message in which it was found best.
    """
    given = [i for i, content in enumerate(contents) if isinstance(content, Prompt) and content.context_spans]
    if given or tool_results:
        return given or list(tool_results)
    rank = {"delimiters": 0, "heuristic": 1, "plain": 2}
    lengths = [len(content if isinstance(content, str) else content.text) for content in contents]
    return [min(range(len(contents)), key=lambda i: (rank[segmentations[i].method], -lengths[i]))]


def _query_of_messages(
    messages: Sequence[Message],
    contents: Sequence[str | Prompt],
    segmentations: Sequence[Segmentation],
    holders: Sequence[int],
) -> str:
    """Return the question: as given, else the last human turn, unless the context stands in that very message."""
    for content in reversed(contents):
        if isinstance(content, Prompt) and content.query is not None:
            return content.query
    texts = [content if isinstance(content, str) else content.text for content in contents]
    humans = [i for i, message in enumerate(messages) if message["role"] in ("user", "human") and texts[i].strip()]
    if humans and humans[-1] not in holders:
        return texts[humans[-1]]
    return segmentations[holders[-1]].query


@dataclass(frozen=True)
class _Place:
    """Where a message's content stands in the rendered text.

    Attributes:
        offset: what to add to an offset into the content as it was given; None: it was reworked.
        data: the span of the rendered text that came from the content.
    """

    offset: int | None
    data: Span


def _locate(
    messages: list[dict[str, Any]], texts: list[str], chat_template: ChatTemplate
) -> tuple[str, list[_Place | None]]:
    """Render the messages and find where each content stands in the result (None: the template drops it).

    The template is rendered a second time with marks for contents: what it writes around them is then known, and a
    content that repeats the template's own words ("user") cannot be mistaken for them. Templates may strip contents
    (Llama 3) or rework them (reasoning of earlier turns); the latter are searched for, in order. A blank content is no
    data, and templates ask whether there is any: it gets no mark.
    """
    text = chat_template(messages)
    marks = [f"\ue000{index}\ue001" for index in range(len(texts))]
    frame = chat_template(
        [
            {**message, "content": mark} if text.strip() else message
            for message, mark, text in zip(messages, marks, texts, strict=True)
        ]
    )
    places: list[_Place | None] = [None] * len(texts)
    marked = [index for index, mark in enumerate(marks) if mark in frame]
    between = re.split("|".join(marks), frame)
    position = len(between[0])
    if text.startswith(between[0]) and re.findall("|".join(marks), frame) == [marks[index] for index in marked]:
        for index, after in zip(marked, between[1:], strict=True):
            given = texts[index]
            form = next((each for each in _forms(given) if text.startswith(each + after, position)), None)
            if form is None:
                break
            offset = position - given.index(form) if form in given else None
            places[index] = _Place(offset, (position, position + len(form)))
            position += len(form) + len(after)
        if position == len(text):
            return text, places
    places, position = [], 0
    for given in texts:
        content = given.strip()
        at = text.find(content, position) if content else -1
        places.append(None if at < 0 else _Place(at - given.index(content), (at, at + len(content))))
        position = max(position, at + len(content))
    return text, places


def _forms(content: str) -> tuple[str, ...]:
    """Return what templates make of a content: as it is, stripped (Llama 3), or within a JSON string (its tools')."""
    return content, content.strip(), json.dumps(content, ensure_ascii=False)[1:-1]
