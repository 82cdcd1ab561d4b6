"""Where the contents of messages stand in the text that a chat template makes of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from rapid_integrations.prompt.segmentation import Span

ChatTemplate: TypeAlias = Callable[[list[dict[str, Any]]], str]
"""Renders messages to the text that the model reads, the opening of its answer included."""


@dataclass(frozen=True)
class Place:
    """Where a message's content stands in the rendered text.

    Attributes:
        offset: what to add to an offset into the content as it was given; None: it was reworked.
        data: the span of the rendered text that came from the content.
    """

    offset: int | None
    data: Span


def locate(
    messages: list[dict[str, Any]], texts: list[str], chat_template: ChatTemplate
) -> tuple[str, list[Place | None]]:
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
    """Return what templates make of a content: as it is, stripped (Llama 3), or within a JSON string (its tools')."""
    return content, content.strip(), json.dumps(content, ensure_ascii=False)[1:-1]
