"""Whether what was found can be trusted: two readings of a prompt, by its words and by its shape, are compared.

A wrong guess costs an answer, "plain" only time. So what is doubtful is given up.
"""

from __future__ import annotations

import re

from rapid_integrations.segmentation.blocks import is_a_chat, is_of_tools
from rapid_integrations.segmentation.instructions import (
    begins_as_instruction,
    instruction_share,
    needs_the_whole_text,
    reads_as_instruction,
    tells_of_oneself,
)
from rapid_integrations.segmentation.shape import Piece, asks, lines_of, settled
from rapid_integrations.segmentation.shaped import of_a_template, shaped_block
from rapid_integrations.segmentation.spans import Segmentation, Span, trimmed

_LOST = 0.08  # share of a context that its edges may lose to both models
_BESIDE = 700  # characters on either side of a span that are looked at
_MOST_UNEXPLAINED = 250
_QUOTING = re.compile(r">[ \t]?")


def judged(text: str, begin: int, stop: int, found: Segmentation | None, labelled: bool) -> Segmentation | None:
    """Return what was found by words, if it can be trusted, else what the shape shows, else None."""
    shape = shaped_block(text, begin, stop)
    if found is not None and (sure := _by_words(text, begin, stop, found, labelled)):
        return sure
    if shape is not None and _convinces(text, begin, *shape):
        span, asked = shape
        return Segmentation("heuristic", (span,), asked.query)
    return None


def _by_words(
    text: str, begin: int, stop: int, found: Segmentation, labelled: bool
) -> Segmentation | None:
    query = settled(found.query, labelled)
    if query is None:
        return None
    (span,) = found.context_spans
    span = _peeled(text, span)
    if span is None or _unexplained(text, begin, stop, span, query) > _MOST_UNEXPLAINED:
        return None
    return Segmentation(found.method, (span,), query)


def _peeled(text: str, span: Span) -> Span | None:
    """Return the span without lines at its edges that may be a template's, None if too much of it is."""
    start, end = span
    room = int((end - start) * _LOST)
    before = text[max(0, start - 200) : start].rstrip(" \t\r\n")
    if not before or before[-1] not in ":：>]】=-_*#~\"'`)":
        lines = lines_of(text, start, min(end, start + room))[:-1]
        for number, line in enumerate(lines[:6]):
            short = len(line.body) <= 200 and (number + 1 < len(lines) and lines[number + 1].blank) and not before
            if not (line.blank or of_a_template(line) or short):
                break
            start = line.end + 1
    for line in reversed(lines_of(text, max(start, end - room), end)[1:]):
        if not (line.blank or line.drawn or line.heads or reads_as_instruction(line.body)):
            break
        end = line.start
    if (quoting := _QUOTING.match(text, start, end)) and text[start : start + 1] == ">":
        start = quoting.end()
    return trimmed(text, start, end)


def _unexplained(text: str, begin: int, stop: int, span: Span, query: str) -> int:
    """Return how much text beside a span is neither a template's nor the question."""
    beside = 0
    for start, end in ((max(begin, span[0] - _BESIDE), span[0]), (span[1], min(stop, span[1] + _BESIDE))):
        for line in lines_of(text, start, end):
            if not (line.blank or of_a_template(line) or line.body in query or query in line.body or line.label):
                beside += len(line.body)
    return beside


def _convinces(text: str, begin: int, span: Span, asked: Piece) -> bool:
    body = text[span[0] : span[1]]
    if instruction_share(body) > 0.15 or is_a_chat(body) or tells_of_oneself(body):
        return False
    if is_of_tools(text[begin : span[0]]) or needs_the_whole_text(asked.query):
        return False
    return asks(asked.query)
