"""The context as the bulk of a prompt: what is left between the short pieces at its beginning and its end."""

from __future__ import annotations

import math
import re
from collections import Counter

from rapid_integrations.prompt.segmentation.instructions import (
    addresses_somebody,
    begins_as_instruction,
    is_a_placeholder,
    needs_the_whole_text,
    reads_as_instruction,
)
from rapid_integrations.prompt.segmentation.lexicon import announces_context
from rapid_integrations.prompt.segmentation.pieces import Piece, question_piece
from rapid_integrations.prompt.segmentation.roles import role_of
from rapid_integrations.prompt.segmentation.shape import Line, asks, is_repeated, lines_of, sentences_of, short_among
from rapid_integrations.prompt.segmentation.spans import MIN_BLOCK_CHARACTERS, Span, trimmed

_ZONE = 3000  # characters at either end of a text that hold a template's pieces
_LONGEST_RULE = 120  # characters of a rule behind a question
_CLOSE = 3  # lines below a question, in one of which a template opens the context
_LONG = 300  # characters of a plain line, beyond which it counts for several
_PRIOR = 5.0  # lines that the shares of a document's kinds of lines count for
_KINDS = {  # share of each kind of line in templates, and in documents before any is seen
    "drawn": (0.10, 0.02),
    "heading": (0.25, 0.03),
    "instruction": (0.30, 0.01),
    "announcement": (0.08, 0.01),
    "address": (0.10, 0.01),
    "label": (0.08, 0.05),
    "item": (0.04, 0.06),
    "short": (0.03, 0.06),
    "plain": (0.02, 0.75),
}
_TAG_BEFORE = re.compile(r"(?:[ \t]*(?:<[^<>\n]{1,160}>|\[[^\[\]\n]{1,60}\]))+[ \t]*")
_TAG_BEHIND = re.compile(r"(?:[ \t]*(?:</[^<>\n]{1,60}>|\[/[^\[\]\n]{1,60}\]))+[ \t]*$")
_ITEM = re.compile(r"[ \t]*(?:[-*+•–·◦▪]|[(\[]?\w{1,2}[.)\]])[ \t]+")  # of a list, or an answer to choose
_OPENING_TAG = re.compile(r"<([^\W\d][^\s<>/]{0,40})(?:[ \t][^<>\n]{0,160})?>")
_BULLET = re.compile(r"[ \t]*(?:[-*+•–·◦▪]|\d{1,2}[.)])[ \t]+")


def shaped_block(text: str, begin: int, stop: int) -> tuple[Span, Piece] | None:
    """Return the bulk of `text[begin:stop]` and the one piece before or behind it that asks, None if it isn't clear."""
    zone = min(_ZONE, int((stop - begin) * 0.45))
    head = lines_of(text, begin, begin + zone)[:-1]  # the last one is cut off
    tail = lines_of(text, stop - zone, stop)[1:]
    middle = (begin + stop) // 2
    body = lines_of(text, middle - zone // 2, middle + zone // 2)[1:-1]
    short = short_among(body)
    weights = _weights(body, short)
    behind = question_piece(text, tail, True)
    before = question_piece(text, head, False)
    count = _template_lines(head, weights, short)
    if before is not None:
        after = next((number for number, line in enumerate(head) if line.start >= before.end), len(head))
        above = _template_lines([line for line in head if line.end <= before.start], weights, short)
        if above < sum(1 for line in head if line.end <= before.start and not line.blank) and count < after:
            before = None  # there is a document above it
        else:
            count = after + _template_lines(head[after:], weights, short)
    if before is not None and not before.named:
        if is_repeated(text, before.query) or _is_of_the_document(head, before):
            before, count = None, _template_lines(head, weights, short)
        elif _may_be_of_the_document(head, tail, before):
            return None
    if behind is not None and not behind.named and is_repeated(text, behind.query):
        return None
    if behind is not None and not behind.named and _goes_on([line for line in tail if line.start >= behind.end]):
        behind = None
    if behind is not None and before is not None and _plainly(behind.query) != _plainly(before.query):
        if before.named == behind.named and (before.labelled == behind.labelled or not before.named):
            return None
        if (before.named, before.labelled) > (behind.named, behind.labelled):
            behind = None
        else:
            before = None
            count = _template_lines(head, weights, short)
    asked = behind or before
    if asked is None:
        return None
    start = head[count - 1].end + 1 if count else begin
    limit = behind.start if behind else stop
    upwards = [line for line in reversed(tail) if line.end <= limit]
    count = _template_lines(upwards, weights, short)
    end = upwards[count - 1].start if count else limit
    span = trimmed(text, start, end)
    if span[1] - span[0] < max(MIN_BLOCK_CHARACTERS, (stop - begin) // 2):
        return None
    return span, asked


def may_be_a_title(text: str, begin: int, stop: int, start: int, end: int) -> bool:
    """Whether a question without a label, `text[start:end]`, before a context may be a heading of the document."""
    zone = min(_ZONE, int((stop - begin) * 0.45))
    if start - begin > zone:
        return True
    head = lines_of(text, begin, begin + zone)[:-1]
    asked = Piece(text[start:end], start, end, False, False)
    return _is_of_the_document(head, asked) or _may_be_of_the_document(head, lines_of(text, stop - zone, stop), asked)


def _is_of_the_document(head: list[Line], asked: Piece) -> bool:
    """Whether a question at the beginning of a prompt, which no label calls one, is a heading of the document."""
    above = [line for line in head if line.end <= asked.start and not line.blank]
    own = [line for line in head if asked.start < line.end <= asked.end and not line.blank]
    below = [line for line in head if line.start >= asked.end and not line.blank]
    if any(not asks(line.body) and role_of(line.body) == "question" for line in [*above[-1:], *own]):
        return False
    if any(_opens_a_context(line) for line in [*above, *own]):
        return True
    told = [*above, *(line for line in own if not asks(line.body))]
    if told and announces_context(told[-1].body):
        adjacent = bool(own) and own[0].start - told[-1].end <= 1
        return adjacent or not any(
            line.drawn or _opens_a_context(line) or announces_context(line.body) for line in below[:_CLOSE]
        )
    if asked.labelled:
        return False
    return not all(of_a_template(line) or line.label or line.body[0] == "|" for line in above)


def _may_be_of_the_document(head: list[Line], tail: list[Line], asked: Piece) -> bool:
    """Whether a question may be the title of a document, behind or before which somebody asks for something else."""
    above = [line for line in head if line.end <= asked.start and not line.blank]
    own = [line for line in head if asked.start < line.end <= asked.end and not line.blank]
    below = [line for line in head if line.start >= asked.end and not line.blank]
    if asked.labelled and own and not asks(own[0].body):
        return False  # its label has a line of its own
    if any(_is_told(line) for line in below[:1]) or any(_tells(line) for line in own):
        return False
    if any(asked.query in line.body for line in tail):
        return False  # it is asked again
    if above:
        return _bids(above[-1]) and not addresses_somebody(above[-1].body)
    last = [line for line in tail if not line.drawn]
    while last and last[-1].blank:
        last.pop()
    first = next((at for at in range(len(last) - 1, -1, -1) if last[at].blank), -1)
    return any(
        line.label is None and not line.said[:1].isspace() and (asks(line.body) or _bids(line))
        for line in last[first + 1 :]
    )


def _is_told(line: Line) -> bool:
    """Whether a line tells how to answer or announces a context, which no title does."""
    return reads_as_instruction(line.body) or announces_context(line.body) or _opens_a_context(line)


def _tells(line: Line) -> bool:
    """Whether a template stands around a question on its line: a tag before it, or an instruction behind it."""
    behind = sentences_of(line.body)[1:]
    return _is_told(line) or line.body[:1] in "[<{" or any(begins_as_instruction(said) for said in behind)


def _bids(line: Line) -> bool:
    """Whether a line bids what is more than how to answer."""
    whole = len(line.body) <= _LONGEST_RULE and needs_the_whole_text(line.body)
    return whole or (begins_as_instruction(line.body) and not reads_as_instruction(line.body))


def _opens_a_context(line: Line) -> bool:
    """Whether a line is the label or the opening tag of a context."""
    if tag := _OPENING_TAG.fullmatch(line.body):
        return role_of(re.sub(r"[_.:-]+", " ", tag[1])) == "context"
    named = line.label[1] if line.label is not None else line.body if line.heads else ""
    return bool(named) and not asks(named) and role_of(named) == "context" and not begins_as_instruction(named)


def _goes_on(lines: list[Line]) -> bool:
    """Whether the text of a document goes on in `lines`."""
    return any(
        len(line.body) > _LONGEST_RULE and not (of_a_template(line) or line.label is not None or _ITEM.match(line.said))
        for line in lines
    )


def _plainly(query: str) -> str:
    return " ".join(query.split()).casefold().strip(" .?!\"'")


def of_a_template(line: Line) -> bool:
    """Whether a line at an edge is a template's: it is drawn, labels, instructs or addresses somebody."""
    return is_plainly_of_a_template(line) or (len(line.body) <= 300 and addresses_somebody(line.body))


def is_plainly_of_a_template(line: Line) -> bool:
    """Whether more than a word such as "you" shows that a line at an edge is a template's."""
    body = line.body
    return (
        line.drawn
        or line.heads
        or is_a_placeholder(body)
        or reads_as_instruction(body)
        or (len(body) <= 300 and begins_as_instruction(body))
        or (len(body) <= 300 and announces_context(body))
    )


def _kind(line: Line, short: float) -> str:
    """Return what a line looks like most."""
    body = line.body
    if line.drawn:
        return "drawn"
    if line.heads:
        return "heading"
    if is_a_placeholder(body) or reads_as_instruction(body) or (len(body) <= 300 and begins_as_instruction(body)):
        return "instruction"
    if len(body) <= 300 and announces_context(body):
        return "announcement"
    if len(body) <= 300 and addresses_somebody(body):
        return "address"
    if line.label is not None and len(body) <= 200:
        return "label"
    if _BULLET.match(line.said):
        return "item"
    return "short" if len(body) < short else "plain"


def _weights(lines: list[Line], short: float) -> dict[str, float]:
    """Return how much each kind of line speaks for a template, given the lines in the middle of the text."""
    counted = Counter(_kind(line, short) for line in lines if not line.blank)
    total = counted.total() + _PRIOR
    return {
        kind: math.log(template * total / (counted[kind] + _PRIOR * document))
        for kind, (template, document) in _KINDS.items()
    }


def _template_lines(lines: list[Line], weights: dict[str, float], short: float) -> int:
    """Return how many of `lines` are the template's: those that speak for it most, all together."""
    best, found, told = 0.0, 0, 0.0
    for number, line in enumerate(lines, 1):
        if line.blank:
            continue
        kind = _kind(line, short)
        told += weights[kind] * (1 + len(line.body) / _LONG if kind == "plain" else 1)
        if told >= best:
            best, found = told, number
    return found
