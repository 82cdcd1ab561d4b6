"""Locates the contents of messages in the text that a chat template makes of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from rapid_integrations.prompt.segmentation import Span

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


def locate(
    messages: list[dict[str, Any]], texts: list[str], chat_template: ChatTemplate
) -> tuple[str, list[Place | None]]:
    """Render the messages and locate each content in the result (None if the template drops it).

    The template is rendered a second time with marks in place of contents. This shows what the template writes around
    them, so a content that repeats the template's own words ("user") cannot be mistaken for them. Templates may strip
    contents (Llama 3) or rework them (reasoning of earlier turns). Reworked contents are searched for, in order. A
    blank content gets no mark, because templates test whether there is any content.
    """
    text = chat_template(messages)
    marks = [f"\ue000{index}\ue001" for index in range(len(texts))]
    frame = chat_template(
        [
            {**message, "content": mark} if text.strip() else message
            for message, mark, text in zip(messages, marks, texts, strict=True)
        ]
    )
    places: list[Place | None] = [None] * len(texts)
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
            places[index] = Place(offset, (position, position + len(form)))
            position += len(form) + len(after)
        if position == len(text):
            return text, places
    places, position = [], 0
    for given in texts:
        content = given.strip()
        at = text.find(content, position) if content else -1
        places.append(None if at < 0 else Place(at - given.index(content), (at, at + len(content))))
        position = max(position, at + len(content))
    return text, places


def _forms(content: str) -> tuple[str, ...]:
    """Return the forms that templates give a content: unchanged, stripped (Llama 3), or in a JSON string (tools)."""
    return content, content.strip(), json.dumps(content, ensure_ascii=False)[1:-1]
