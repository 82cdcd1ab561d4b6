"""Locating the documents in a rendered template.

A template is rendered twice: once unchanged, and once with a mark in place of each document. The text between the marks
belongs to the template, so the documents' places are known exactly, even if their words also occur elsewhere. If the
two renderings do not match, because the template reads or changes a value, the text is searched for the documents.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, TextBlock

from llama_index_rapid.template_variables import texts_of
from rapid_integrations.adapters.verbatim import verbatim_spans
from rapid_integrations.prompt.segmentation import Span

Render = Callable[[Mapping[str, Any]], Sequence[str]]
"""Renders the variables' values and returns the texts of the messages."""

_MARK = re.compile("\ue0f0(\\d+)\ue0f1")  # private-use characters, which templates do not contain


@dataclass(frozen=True)
class Rendered:
    """The spans of the documents in each rendered text, and the template's own text between them."""

    spans: tuple[tuple[Span, ...], ...]
    own: str


def locate_documents(
    texts: Sequence[str], documents: Sequence[str], values: Mapping[str, Any], render: Render
) -> Rendered:
    """Return the spans of the variables `documents` in `texts`, which are the result of `render(values)`."""
    for mark in (_each_text, _whole_value):
        marks: list[str] = []
        marked = {name: mark(values[name], marks) for name in documents}
        try:
            found = _between_marks(texts, render({**values, **marked}), marks)
        except Exception:  # the template cannot print a mark; it may read a node's attributes, for instance
            continue
        if found is not None:
            return found
    wanted = [text for name in documents for text in texts_of(values[name])]
    spans = tuple(verbatim_spans(text, wanted) for text in texts)
    return Rendered(spans, "\n".join(_outside(text, of_text) for text, of_text in zip(texts, spans, strict=True)))


def _each_text(value: Any, marks: list[str]) -> Any:
    """Return the value with a mark in place of each of its texts."""
    if isinstance(value, str):
        return _mark_of(value, marks)
    if isinstance(value, ChatMessage):
        blocks = [
            block.model_copy(update={"text": _mark_of(block.text, marks)}) if isinstance(block, TextBlock) else block
            for block in value.blocks
        ]
        return value.model_copy(update={"blocks": blocks})
    if isinstance(value, (list, tuple)):
        return [_each_text(each, marks) for each in value]
    return value


def _whole_value(value: Any, marks: list[str]) -> Any:
    """Return one mark for the value's `str`, because that is how a template of `str.format` prints a list."""
    return _mark_of(str(value), marks)


def _mark_of(text: str, marks: list[str]) -> str:
    if not text.strip():
        return text
    marks.append(text)
    return f"\ue0f0{len(marks) - 1}\ue0f1"


def _between_marks(texts: Sequence[str], marked: Sequence[str], marks: Sequence[str]) -> Rendered | None:
    """Return the spans of the marked texts; None if the renderings do not match."""
    if len(texts) != len(marked) or not marks:
        return None
    every: list[tuple[Span, ...]] = []
    own: list[str] = []
    for text, with_marks in zip(texts, marked, strict=True):
        position, spans = 0, []
        for index, piece in enumerate(_MARK.split(with_marks)):
            value = marks[int(piece)] if index % 2 else piece
            if not text.startswith(value, position):
                return None
            if index % 2:
                start = position + len(value) - len(value.lstrip())
                spans.append((start, start + len(value.strip())))
            else:
                own.append(piece)
            position += len(value)
        if position != len(text):
            return None
        every.append(tuple(spans))
    return Rendered(tuple(every), "\n".join(own)) if any(every) else None


def _outside(text: str, spans: Sequence[Span]) -> str:
    edges = [0, *(edge for span in spans for edge in span), len(text)]
    return "\n".join(text[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True))
