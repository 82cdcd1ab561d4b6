"""The context as the bulk of a prompt: what is left between the short pieces at its beginning and its end."""

from __future__ import annotations

import re

from rapid_integrations.segmentation.instructions import (
    addresses_somebody,
    begins_as_instruction,
    is_a_placeholder,
    names_the_task,
    reads_as_instruction,
)
from rapid_integrations.segmentation.lexicon import ANNOUNCES_CONTEXT, BACKWARD, ROLES
from rapid_integrations.segmentation.shape import Line, Piece, is_repeated, lines_of, question_piece
from rapid_integrations.segmentation.spans import MIN_BLOCK_CHARACTERS, Span, trimmed

_ZONE = 3000  # characters at either end of a text that hold a template's pieces
_LOST = 0.08  # share of a document that may be left to both models at either end
_TAG_BEFORE = re.compile(r"(?:[ \t]*(?:<[^<>\n]{1,160}>|\[[^\[\]\n]{1,60}\]))+[ \t]*")
_TAG_BEHIND = re.compile(r"(?:[ \t]*(?:</[^<>\n]{1,60}>|\[/[^\[\]\n]{1,60}\]))+[ \t]*$")
_BULLET = re.compile(r"[ \t]*(?:[-*+•–·◦▪]|\d{1,2}[.)])[ \t]+")


def shaped_block(text: str, begin: int, stop: int) -> tuple[Span, Piece] | None:
    """Return the bulk of `text[begin:stop]` and the one piece before or behind it that asks, None if it isn't clear."""
    zone = min(_ZONE, int((stop - begin) * 0.45))
    head = lines_of(text, begin, begin + zone)[:-1]  # the last one is cut off
    tail = lines_of(text, stop - zone, stop)[1:]
    behind = question_piece(text, tail, True)
    start, before = _start(text, head, begin)
    if behind is not None and before is not None and _plainly(behind.query) != _plainly(before.query):
        if before.named == behind.named and before.labelled == behind.labelled:
            return None
        if (before.named, before.labelled) > (behind.named, behind.labelled):
            behind = None
        else:
            before = None
            start, _ = _start(text, head, begin)
    asked = behind or before
    if asked is None or start < 0:
        return None
    end = _end(text, tail, behind.start if behind else stop, stop - zone)
    span = trimmed(text, start, end)
    if span[1] - span[0] < max(MIN_BLOCK_CHARACTERS, (stop - begin) // 2):
        return None
    return span, asked


def _plainly(query: str) -> str:
    return " ".join(query.split()).casefold().strip(" .?!\"'")


def of_a_template(line: Line) -> bool:
    """Whether a line at an edge is a template's: ornament, label, instruction, placeholder."""
    body = line.body
    return (
        line.drawn
        or line.heads
        or is_a_placeholder(body)
        or reads_as_instruction(body)
        or (len(body) <= 300 and begins_as_instruction(body))
        or (len(body) <= 300 and addresses_somebody(body))
        or (len(body) <= 300 and bool(ANNOUNCES_CONTEXT.search(body)))
    )


def _start(text: str, head: list[Line], begin: int) -> tuple[int, Piece | None]:
    """Return where the bulk starts, and the question before it."""
    position, at, asked = begin, 0, None
    while at < len(head):
        line = head[at]
        if line.blank or of_a_template(line):
            at += 1
            position = line.end + 1
            continue
        label = line.label
        rest = line.said.lstrip()[label.end() :] if label else ""
        if asked is None and (piece := question_piece(text, head[: at + 1], False)) and piece.end == line.end:
            asked = piece
            at += 1
            position = line.end + 1
            continue
        if label is not None and len(line.body) <= 200 and not is_repeated(text, label[1]) and rest.strip():
            later = [each for each in head[at + 1 : at + 4] if not each.blank]
            if later and (of_a_template(later[0]) or later[0].label):
                at += 1
                position = line.end + 1
                continue
        if label is not None and rest.strip():
            position = line.end - len(rest.lstrip()) if len(line.body) > 60 else position
        break
    return (position if at < len(head) else -1), asked


def _end(text: str, tail: list[Line], stop: int, floor: int) -> int:
    """Return where the bulk ends above `stop`."""
    end = stop
    for line in reversed([line for line in tail if line.start < stop]):
        if line.blank or line.drawn or line.heads:
            end = line.start
            continue
        body = line.body
        if len(body) > 700 or not (
            (begins_as_instruction(body) and (names_the_task(body) or addresses_somebody(body)))
            or reads_as_instruction(body)
            or (len(body) <= 160 and BACKWARD.search(body) and ROLES["context"].search(body))
        ):
            break
        end = line.start
    return end
