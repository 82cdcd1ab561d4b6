"""Whether what was found can be trusted: two readings of a prompt, by its words and by its shape, are compared.

A wrong guess costs an answer, "plain" only time. So what is doubtful is given up.
"""

from __future__ import annotations

import re

from rapid_integrations.segmentation.blocks import is_a_chat, is_of_tools
from rapid_integrations.segmentation.edges import inner
from rapid_integrations.segmentation.instructions import (
    begins_as_instruction,
    instruction_share,
    needs_the_whole_text,
    tells_of_oneself,
)
from rapid_integrations.segmentation.shape import Line, Piece, asks, is_repeated, lines_of, settled
from rapid_integrations.segmentation.shaped import of_a_template, shaped_block
from rapid_integrations.segmentation.spans import Segmentation, Span

_LOST = 0.08  # share of a context that its edges may lose to both models
_BESIDE = 700  # characters on either side of a span that are looked at
_MOST_UNEXPLAINED = 250
_NEAR = 0.3  # share of a span behind which a question in it is a template's, not a document's
_SAMPLE = 10_000
_ELEMENT = re.compile(r"\s*<(\w+)[^<>]*>.*</\1>\s*$")
_REWRITES = re.compile(
    r"(?:please )?(?:translate|rewrite|proofread|paraphrase|correct|übersetze|traduis|traduce)\b", re.IGNORECASE
)
_BULLET = re.compile(r"\s*(?:[-*+•–·◦▪]|\d{1,4}[.)])[ \t]+")
_RULES = 2000  # characters of rules beside a context
_FOLLOWS = re.compile(r"(?:follows?|below|folg(?:t|en)|suit|suivent|sigue|segue|volgt)[.:]?$", re.IGNORECASE)
_UNDERLINE = re.compile(r"[ \t]*\r?\n[ \t]*([-=~_*^])\1{2,}[ \t]*\r?\n")
_LONG_LINE = 60
_SHORT_LINE = 120  # characters
_TAG_END = re.compile(r"[>\]][ \t]*$")
_OPENING = re.compile(
    r"\s*(?:[<>{\"'“„«`]{1,6}|\[?\(?\w{1,3}[.)][ \t]+(?=[\w ]{1,24}:)|[^\W\d_][\w ()]{0,24}[ \t]?(?:[:：]|=)(?=\s))\s*"
)
_QUOTING = re.compile(r"(?:\w{1,20}[ \t]?=[ \t]?(?=[\"'{])|>[ \t]|[{\"'“„«`]{1,6}|<{2,6})\s*")
_CLOSING = re.compile(r"[\"”»]\.?\s*$|\s[^\W\d_]{2,14}[ \t]?[:：|=]\s*$|\s*[},<\"'”»`>\]|]{1,6}\s*$")


def judged(text: str, begin: int, stop: int, found: Segmentation | None, labelled: bool) -> Segmentation | None:
    """Return what was found by words, if it can be trusted, else what the shape shows, else None."""
    shape = shaped_block(text, begin, stop)
    if found is not None and (sure := _by_words(text, begin, stop, found, labelled)):
        return sure
    if shape is not None and _convinces(text, begin, *shape):
        span, asked = shape
        weak = not asked.labelled
        if found is not None and _is_within(asked.start, found.context_spans[0]) and found.method == "delimiters":
            return None  # what asks stands in what the words bound
        if weak and (_is_a_list(text[slice(*span)]) or _of_everything(text, begin, span)):
            return None
        if (within := inner(text, span, asked.query)) is not None:
            return Segmentation("heuristic", (within,), asked.query)
    return None


def _is_within(at: int, span: Span) -> bool:
    return span[0] <= at < span[1]


def _by_words(text: str, begin: int, stop: int, found: Segmentation, labelled: bool) -> Segmentation | None:
    behind = text[found.context_spans[0][1] :].lstrip()
    alone = behind[:2] == "</" and behind.split(">", 1)[-1].strip() == found.query.strip() and not asks(found.query)
    query = settled(found.query, labelled or alone)
    query = _unlabelled(text, query) if query is not None else None
    if query is None or not (asks(query) or _stands_alone(text, query)):
        return None
    (span,) = found.context_spans
    within = inner(text, span, query)
    weak = found.method == "heuristic" and not labelled
    if within is None or (weak and (_is_a_list(text[slice(*within)]) or _of_everything(text, begin, within))):
        return None
    if _unexplained(text, begin, stop, span, query) > _MOST_UNEXPLAINED:
        return None
    return Segmentation(found.method, (within,), query)


def _unexplained(text: str, begin: int, stop: int, span: Span, query: str) -> int:
    """Return how much text beside a span is neither a template's nor the question."""
    beside = 0
    for start, end in ((max(begin, span[0] - _BESIDE), span[0]), (span[1], min(stop, span[1] + _BESIDE))):
        for line in lines_of(text, start, end):
            if not (line.blank or of_a_template(line) or line.body in query or query in line.body or line.label):
                beside += len(line.body)
    return beside


def _unlabelled(text: str, query: str) -> str | None:
    """Return a question without a label that was left before it, None if the text is made of such labels."""
    label = Line(0, len(query), query).label
    if label is None or asks(label[0]) or not asks(query):
        return query
    rest = query[label.end() :].strip()
    if not (rest[:1].isupper() or not rest[:1].isascii() or rest[:1] == "¿"):
        return query
    return None if is_repeated(text, label[1]) else rest


def _stands_alone(text: str, query: str) -> bool:
    """Whether a request without a question mark is all that stands on its lines, but for a label or tags."""
    at = max(text.rfind(query), 0)
    after = text[at + len(query) : at + len(query) + 40].lstrip(" \t\"'`*_.").lstrip("”»")
    return not after or after[0] in "\r\n<[}|" or at == 0


def _convinces(text: str, begin: int, span: Span, asked: Piece) -> bool:
    body = text[span[0] : span[1]]
    if instruction_share(body) > 0.15 or is_a_chat(body) or tells_of_oneself(body):
        return False
    if is_of_tools(text[begin : span[0]]) or needs_the_whole_text(asked.query):
        return False
    return asks(asked.query) or asked.named


def _is_a_list(body: str) -> bool:
    """Whether most lines of a text are a list's, or stand in tags of their own: rules rather than a document."""
    lines = [line for line in body[:_SAMPLE].split("\n") if line.strip()]
    listed = sum(1 for line in lines if _BULLET.match(line) or _ELEMENT.match(line))
    return listed > 0.6 * len(lines)


def _of_everything(text: str, begin: int, span: Span) -> bool:
    """Whether a line before or behind a context wants all of it translated, rewritten or the like."""
    outside = lines_of(text, max(begin, span[0] - _BESIDE), span[0]) + lines_of(text, span[1], span[1] + _BESIDE)
    return any(
        needs_the_whole_text(line.body[:60]) and begins_as_instruction(line.body) or _REWRITES.match(line.body)
        for line in outside
    )
