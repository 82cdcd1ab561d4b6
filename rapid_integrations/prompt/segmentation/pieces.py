"""The short piece of a prompt that asks, by a question mark or by its label."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rapid_integrations.prompt.segmentation.instructions import (
    begins_as_instruction,
    reads_as_instruction,
)
from rapid_integrations.prompt.segmentation.role_words import ROLES
from rapid_integrations.prompt.segmentation.roles import role_of
from rapid_integrations.prompt.segmentation.settling import settled
from rapid_integrations.prompt.segmentation.shape import EDGES, Line, asks, is_repeated, sentences_of

_INLINE_TAG = re.compile(r"\s*(?:<[^\W\d][^\s<>]{0,40}(?:[ \t][^<>\n]{0,160})?>|\[[A-Za-z_][\w .-]{0,40}\])")
_OPENING_TAG = re.compile(r"(?:<([^\W\d][^\s<>]{0,40})(?:[ \t][^<>\n]{0,160})?>|\[([A-Za-z_][\w .-]{0,40})\])[ \t]*$")
_DOTTED = re.compile(r"\w\.\w")  # the name of a module: "requests.models"
_AROUND_A_NAME = " \t:：#*_=~-<>[]【】《》「」()|`0123456789."
_LONGEST_TITLE = 60
_FEWEST_WORDS = 3  # of a request
_LONGEST_REQUEST = 200
_LONGEST_RULE = 120


@dataclass(frozen=True)
class Piece:
    """A question found by its shape: where its own lines begin and end, and what shows that it is one."""

    query: str
    start: int
    end: int
    labelled: bool
    named: bool


def question_piece(text: str, lines: list[Line], behind: bool) -> Piece | None:
    """Return the one piece among `lines` that asks, with a label of its own or apart from the others.

    Args:
        text: that the lines are of.
        lines: the head or the tail of it.
        behind: whether they are the tail; then the last one counts, in a head the first.
    """
    order = range(len(lines) - 1, -1, -1) if behind else range(len(lines))
    for at in order:
        line = lines[at]
        if line.blank or line.drawn or not asks(line.body):
            continue
        piece = _piece(text, lines, at)
        if piece is None and behind:
            return None  # the last line that asks is one of a text
        if piece is not None:
            return (_labelled_above(text, lines, at) or piece) if behind and not piece.labelled else piece
    for at in order:
        line = lines[at]
        if (piece := _request(text, lines, at)) is not None:
            return piece
        if len(line.body) > _LONGEST_RULE and not (line.heads or reads_as_instruction(line.body)):
            return None  # a line of the document
    return None


def _request(text: str, lines: list[Line], at: int) -> Piece | None:
    """Return what stands behind or below a label that names a question, though it has no question mark."""
    line = lines[at]
    if line.blank or line.drawn:
        return None
    if line.label is not None and (rest := line.said.lstrip()[line.label.end() :].strip(EDGES)):
        name, first, last = line.label[1], line, line
    else:
        above = [each for each in lines[max(0, at - 4) : at] if not each.blank]
        if above and above[-1].drawn and not _is_an_opening_tag(above[-1]):
            above.pop()
        if not above or len(above[-1].body) > _LONGEST_TITLE:
            return None
        rest, name, first, last = line.body, above[-1].body, above[-1], line
        below = lines[at + 1 : at + 2]
        if below and not (below[0].blank or below[0].drawn or below[0].heads):
            return None
        if not (above[-1].heads or _is_an_opening_tag(above[-1]) or _is_underlined(lines, above[-1])):
            return None
    if role_of(name.strip(_AROUND_A_NAME)) != "question" or _DOTTED.search(name) or is_repeated(text, name):
        return None
    if len(rest) > _LONGEST_REQUEST or len(sentences_of(rest)) > 2 or rest[0] == "|" or rest[-1] in ":：":
        return None
    if reads_as_instruction(rest) or (rest.isascii() and len(rest.split()) < _FEWEST_WORDS):
        return None
    return Piece(rest, first.start, last.end, True, True)


def _is_underlined(lines: list[Line], line: Line) -> bool:
    at = lines.index(line)
    return at + 1 < len(lines) and lines[at + 1].drawn and lines[at + 1].body[0] in "-=~"


def _labelled_above(text: str, lines: list[Line], at: int) -> Piece | None:
    """Return a question with a label of its own a few lines above one without: "Question: ...", "Is it known?"."""
    for index in range(at - 1, max(-1, at - 8), -1):
        if asks(lines[index].body):
            piece = _piece(text, lines, index)
            return piece if piece is not None and piece.labelled else None
    return None


def _piece(text: str, lines: list[Line], at: int) -> Piece | None:
    line = lines[at]
    label = line.label
    if label is not None and not asks(label[0]):
        own = line.start + len(line.said) - len(line.said.lstrip())
        rest = line.said.lstrip()[label.end() :]
        named = bool(ROLES["question"].search(label[1]))
        if is_repeated(text, label[1]) or (not named and _is_in_a_dialogue(lines, at)):
            return None
        if asks(rest) and len(rest) <= 600:
            query = settled(re.sub(r"</?[^\s<>]+>", "", rest), True)
            return Piece(query, own, line.end, True, named) if query else None
    first = at
    while first > 0 and not (lines[first - 1].blank or lines[first - 1].drawn or lines[first - 1].heads):
        above = lines[first - 1]
        if at - first >= 3 or len(above.body) > 300 or above.label or begins_as_instruction(above.body):
            break
        first -= 1
    upper = lines[first - 1] if first > 0 else None
    before = next((each for each in reversed(lines[:first]) if not each.blank), None)
    headed = before is not None and (before.heads or _is_an_opening_tag(before)) and not is_repeated(text, before.body)
    inline = _INLINE_TAG.match(lines[first].said)
    query = text[lines[first].start : line.end]
    if inline:
        query = re.sub(r"\s*(?:</?[^\W\d][^<>\n]{0,200}>|\[/?[A-Za-z_][\w .-]{0,40}\])\s*", "", query)
    if len(query) > 700:
        return None
    labelled = bool(headed or inline)
    apart = upper is None or upper.blank or upper.drawn or upper.heads
    if not labelled and not apart and not begins_as_instruction(upper.body if upper else ""):
        return None
    found = settled(query, labelled and not begins_as_instruction(query))
    if found is None or len(sentences_of(found)) > 4:
        return None
    start = before.start if headed and before is not None else lines[first].start
    name = before.body if headed and before is not None else lines[first].body[:40]
    named = labelled and bool(ROLES["question"].search(name))
    return Piece(found, start, line.end, labelled, named)


def _is_in_a_dialogue(lines: list[Line], at: int) -> bool:
    """Whether a line right before or behind a labelled one has a label of its own, too."""
    beside = [lines[index] for index in (at - 1, at + 1) if 0 <= index < len(lines)]
    return any(line.label is not None and not line.heads for line in beside)


def _is_an_opening_tag(line: Line) -> bool:
    return bool(_OPENING_TAG.match(line.body))
