"""Locates the contents of messages in the text that a chat template makes of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from rapid_integrations.prompt.segmentation import Span

REASONING = ("reasoning_content", "thinking", "reasoning")
"""The keys of a message's reasoning. Ours is the first. Templates read any (Solar Open the last alone)."""

ChatTemplate: TypeAlias = Callable[[list[dict[str, Any]]], str]
"""Renders messages to the text that the model reads, including the opening of its answer."""


@dataclass(frozen=True)
class Place:
    """The place of a message's content in the rendered text.

    Attributes:
        offset: number to add to an offset into the given content; None if the template reworked the content.
        data: the span of the rendered text that came from the content.
    """

    offset: int | None
    data: Span


@dataclass(frozen=True)
class Located:
    """Rendered messages, and the places of what came from outside.

    Attributes:
        text: what the template wrote.
        contents: the place of each message's content; None if the template drops it.
        reasoning: the spans of the rendered text that came from messages' reasoning.
    """

    text: str
    contents: list[Place | None]
    reasoning: list[Span]


def locate(messages: list[dict[str, Any]], texts: list[str], chat_template: ChatTemplate) -> Located:
    """Render the messages and locate each content, and what is shown of the reasoning, in the result.

    The template is rendered a second time with marks in place of contents. This shows what the template writes around
    them, so a content that repeats the template's own words ("user") cannot be mistaken for them. Templates may strip
    contents (Llama 3) or rework them (reasoning of earlier turns). Reworked contents are searched for, in order. A
    blank content gets no mark, because templates test whether there is any content.
    """
    text = chat_template(messages)
    # Templates write reasoning before the content of its message.
    fields = [
        field for index, given in enumerate(texts) for field in (*_reasoning(messages, index), (index, "", given))
    ]
    marks = [f"\ue000{number}\ue001" for number in range(len(fields))]
    framed = [dict(message) for message in messages]
    for mark, (index, key, given) in zip(marks, fields, strict=True):
        if given.strip():
            framed[index] |= dict.fromkeys(_keys(messages[index]) if key else ("content",), mark)
    frame = chat_template(framed)
    places = _between(text, frame, [given for _, _, given in fields], marks)
    if places is None:
        shown = [given if mark in frame or not key else "" for mark, (_, key, given) in zip(marks, fields, strict=True)]
        places = _in_order(text, shown)
    named = list(zip(fields, places, strict=True))
    return Located(
        text,
        [place for (_, key, _), place in named if not key],
        [place.data for (_, key, _), place in named if key and place is not None],
    )


def with_reasoning_named(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message with its reasoning under every name that templates read."""
    given = _keys(message)
    return {**dict.fromkeys(REASONING, message[given[0]]), **message} if given else message


def _keys(message: Mapping[str, Any]) -> list[str]:
    return [key for key in REASONING if isinstance(message.get(key), str)]


def _reasoning(messages: list[dict[str, Any]], index: int) -> list[tuple[int, str, str]]:
    """Return a message's place, its key and its reasoning, nothing without one."""
    return [(index, key, messages[index][key]) for key in _keys(messages[index])[:1]]


def _between(text: str, frame: str, givens: list[str], marks: list[str]) -> list[Place | None] | None:
    """Return the places of texts that stand in `text` where their marks stand in `frame`; None if one is reworked."""
    places: list[Place | None] = [None] * len(givens)
    marked = [index for index, mark in enumerate(marks) if mark in frame]
    between = re.split("|".join(marks), frame)
    position = len(between[0])
    if not text.startswith(between[0]) or re.findall("|".join(marks), frame) != [marks[index] for index in marked]:
        return None
    for index, after in zip(marked, between[1:], strict=True):
        given = givens[index]
        form = next((each for each in _forms(given) if text.startswith(each + after, position)), None)
        if form is None:
            return None
        offset = position - given.index(form) if form in given else None
        places[index] = Place(offset, (position, position + len(form)))
        position += len(form) + len(after)
    return places if position == len(text) else None


def _in_order(text: str, givens: list[str]) -> list[Place | None]:
    """Return the places of texts that are searched for one behind the other."""
    places: list[Place | None] = []
    position = 0
    for given in givens:
        content = given.strip()
        at = text.find(content, position) if content else -1
        places.append(None if at < 0 else Place(at - given.index(content), (at, at + len(content))))
        position = max(position, at + len(content))
    return places


def _forms(content: str) -> tuple[str, ...]:
    """Return the forms that templates give a content: unchanged, stripped (Llama 3), or in a JSON string (tools)."""
    return content, content.strip(), content.strip("\n"), json.dumps(content, ensure_ascii=False)[1:-1]
