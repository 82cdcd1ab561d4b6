"""Whether what was found can be trusted: two readings of a prompt, by its words and by its shape, are compared.

A wrong guess costs an answer, "plain" only time. So what is doubtful is given up.
"""

from __future__ import annotations

import re

from rapid_integrations.prompt.segmentation.blocks import is_a_chat, is_of_tools
from rapid_integrations.prompt.segmentation.edges import inner
from rapid_integrations.prompt.segmentation.instructions import (
    begins_as_instruction,
    instruction_share,
    is_of_one_writer,
    needs_the_whole_text,
    reads_as_instruction,
    tells_of_oneself,
    tells_of_the_writer,
)
from rapid_integrations.prompt.segmentation.pieces import Piece
from rapid_integrations.prompt.segmentation.roles import role_of
from rapid_integrations.prompt.segmentation.settling import settled
from rapid_integrations.prompt.segmentation.shape import Line, asks, is_repeated, lines_of
from rapid_integrations.prompt.segmentation.shaped import may_be_a_title, of_a_template, shaped_block
from rapid_integrations.prompt.segmentation.spans import Segmentation, Span

_LOST = 0.08  # share of a context that its edges may lose to both models
_BESIDE = 700  # characters on either side of a span that are looked at
_MOST_UNEXPLAINED = 250
_NEAR = 0.3  # share of a span behind which a question in it is a template's, not a document's
_SAMPLE = 10_000
_COMMON = 0.8  # share of what one reading finds that the other must have, too
_MOST_LISTED = 0.6  # share of lines
_SHORT_CUE = 60  # characters
_EXAMPLES = 4  # that the cue of an answer alone shows
_MARKED_EXAMPLES = 3  # that all marks around a context show
_NEARLY_ALL = 0.9  # share of lines
_RULE_END = re.compile(r"[.!?。](?:</\w+>)?\s*$")
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
    """Return what was found by words, if it can be trusted, else what the shape shows, else None.

    Args:
        text: the prompt.
        begin: where it begins behind answered examples, in characters.
        stop: where it ends but for a chat template's tokens.
        found: what its words show.
        labelled: whether a label or tag names the question in it.
    """
    shape = _by_shape(text, begin, stop, found)
    sure = _by_words(text, begin, stop, found, labelled) if found is not None else None
    if sure is None or shape is None or not _same(sure.query, shape.query):
        return sure or shape
    if sure.method == "delimiters":
        return sure  # marks say more of the edges than the shape does
    (span,), (other,) = sure.context_spans, shape.context_spans
    common = max(span[0], other[0]), min(span[1], other[1])
    if common[1] - common[0] < _COMMON * (span[1] - span[0]):
        return sure
    return Segmentation(sure.method, (common,), sure.query)


def _same(query: str, other: str) -> bool:
    return query.split() == other.split()


def _by_words(text: str, begin: int, stop: int, found: Segmentation, labelled: bool) -> Segmentation | None:
    (span,) = found.context_spans
    behind = text[span[1] :].lstrip()
    alone = behind[:2] == "</" and behind.split(">", 1)[-1].strip() == found.query.strip() and not asks(found.query)
    query = settled(found.query, labelled or alone)
    query = _unlabelled(text, query) if query is not None else None
    if query is None or not (asks(query) or _stands_alone(text, query)):
        return None
    marked = found.method == "delimiters"
    within = inner(text, span, query, marked)
    if within is None or _unexplained(text, begin, stop, span, query) > _MOST_UNEXPLAINED:
        return None
    if found.method == "heuristic" and not _is_a_document(text, begin, within, labelled, labelled):
        return None
    if not labelled and tells_of_the_writer(text[begin : within[0]]):
        return None
    if not labelled and (at := text.find(query, begin, span[0])) >= 0 and _is_a_line(text, at, at + len(query)):
        if may_be_a_title(text, begin, stop, max(begin, text.rfind("\n", begin, at) + 1), at + len(query)):
            return None
    if _is_of_examples(text, within, stop, marked) or is_of_one_writer(query, text[slice(*within)]):
        return None
    return Segmentation(found.method, (within,), query)


def _by_shape(text: str, begin: int, stop: int, found: Segmentation | None) -> Segmentation | None:
    shape = shaped_block(text, begin, stop)
    if shape is None or not _convinces(text, begin, *shape):
        return None
    span, asked = shape
    if found is not None and found.method == "delimiters":
        bounds = found.context_spans[0]
        if bounds[0] <= asked.start < bounds[1]:
            return None  # what asks stands in what the words bound
    within = inner(text, span, asked.query)
    if (
        within is None
        or _is_a_history(text, begin, within[0])
        or not _is_a_document(text, begin, within, asked.labelled, asked.named)
    ):
        return None
    if not asked.labelled and tells_of_the_writer(text[begin : within[0]]):
        return None
    if _is_of_examples(text, within, stop) or is_of_one_writer(asked.query, text[slice(*within)]):
        return None
    return Segmentation("heuristic", (within,), asked.query)


def _is_a_document(text: str, begin: int, span: Span, labelled: bool, named: bool) -> bool:
    """Whether a text that no label or tag names is neither rules nor to be rewritten as a whole.

    Args:
        text: the prompt.
        begin: where it begins behind answered examples, in characters.
        span: the text in it.
        labelled: whether the question has a label or a tag.
        named: whether that calls it a question; a heading of the document's may look like a label.
    """
    body = text[slice(*span)]
    if _is_of_rules(body) or is_of_tools(text[begin : span[0]]):
        return False
    if not named and _of_everything(text, begin, span):
        return False
    return labelled or not _is_a_list(body)


def _is_of_examples(text: str, span: Span, stop: int, marked: bool = False) -> bool:
    """Whether the cue of the answer at the end of a prompt stands in the context, too, time and again.

    Documents that hold questions and answers have such lines, too. So if marks bound the context (`marked`), all that
    a template repeats in each example counts: what opens a context, a text, what closes it, then the cue.
    """
    cue = text[max(0, stop - _SHORT_CUE) : stop].rsplit("\n", 1)[-1].strip()
    if cue[-1:] not in (":", "：", ">", "="):
        return False
    if not marked or _within_lines(text, span, cue):
        return text.count(cue, *span) >= _EXAMPLES
    return _repeats(text, span, cue) >= _MARKED_EXAMPLES


def _within_lines(text: str, span: Span, cue: str) -> bool:
    """Whether nearly every line of a context has the cue behind a text: a line is an example there."""
    lines = [line.strip() for line in text[slice(*span)].splitlines() if line.strip()]
    return sum(line.find(cue) > 0 for line in lines) >= _NEARLY_ALL * len(lines)


def _repeats(text: str, span: Span, cue: str) -> int:
    """Return how many examples in a context have its opening line, a text, its closing line and the cue; linear."""
    opening = text[max(0, span[0] - _BESIDE) : span[0]].rstrip().rsplit("\n", 1)[-1].strip()
    behind = Line(0, 0, text[span[1] : span[1] + _BESIDE].strip().split("\n", 1)[0])
    closing = behind.said[: behind.label.end()] if behind.label is not None else behind.body
    if not opening or not closing:
        return 0
    found = [
        (match.start(), kind, match.end())
        for kind, line in enumerate((cue, closing, opening))
        for match in re.finditer(rf"^[ \t]*{re.escape(line)}(?!{re.escape(line[-1])})", text, re.MULTILINE)
        if span[0] <= match.start() < span[1]
    ]
    count, begun, closed = 0, span[0], False  # begun: where the text of an example begins, -1 outside of one
    for start, kind, end in sorted(found):
        ends = begun >= 0 and bool(text[begun:start].strip())
        if kind == 0:
            count += closed or (ends and closing == cue)
            begun, closed = -1, False
        elif kind == 1 and ends:
            begun, closed = -1, True
        elif kind == 2 and not (closed and opening == closing):
            begun, closed = end, False
    return count


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


def _is_a_history(text: str, begin: int, start: int) -> bool:
    """Whether the last label on a line of its own before a text calls it a conversation."""
    lines = lines_of(text, max(begin, start - _RULES), start)
    named = (role_of(line.body) for line in reversed(lines) if line.heads and not line.drawn)
    return next((role for role in named if role in ("context", "history")), "") == "history"


def _is_a_line(text: str, start: int, end: int) -> bool:
    """Whether no quotation mark stands before `text[start:end]`, and no word behind it on its line."""
    behind = text[end : end + _BESIDE].split("\n", 1)[0]
    return text[max(0, start - 1) : start] not in tuple("\"'“„«「`") and not any(map(str.isalnum, behind))


def _stands_alone(text: str, query: str) -> bool:
    """Whether a request without a question mark is all that stands on its lines, but for a label or tags."""
    at = max(text.rfind(query), 0)
    after = text[at + len(query) : at + len(query) + 40].lstrip(" \t\"'`*_.").lstrip("”»")
    return not after or after[0] in "\r\n<[}|" or at == 0


def _convinces(text: str, begin: int, span: Span, asked: Piece) -> bool:
    body = text[span[0] : span[1]]
    if instruction_share(body) > 0.15 or is_a_chat(body) or tells_of_oneself(body):
        return False
    if needs_the_whole_text(asked.query):
        return False
    return asks(asked.query) or asked.named


def _is_a_list(body: str) -> bool:
    """Whether most lines of a text are a list's, or stand in tags of their own: rules rather than a document."""
    lines = [line for line in body[:_SAMPLE].split("\n") if line.strip()]
    listed = sum(1 for line in lines if _BULLET.match(line) or _ELEMENT.match(line))
    return listed > _MOST_LISTED * len(lines)


def _is_of_rules(body: str) -> bool:
    """Whether most lines of a text are items that end as sentences do, or such sentences in tags."""
    lines = [line for line in body[:_SAMPLE].split("\n") if line.strip()]
    rules = sum(1 for line in lines if (_BULLET.match(line) or _ELEMENT.match(line)) and _RULE_END.search(line))
    return rules > _MOST_LISTED * len(lines)


def _of_everything(text: str, begin: int, span: Span) -> bool:
    """Whether a line before or behind a context wants all of it translated, rewritten or the like."""
    before = max(begin, span[0] - _BESIDE)
    first = lines_of(text, begin, min(before, begin + _BESIDE))
    outside = [
        *(line for line in first if not reads_as_instruction(line.body)),  # "You summarise documents to answer ..."
        *lines_of(text, before, span[0]),
        *lines_of(text, span[1], span[1] + _BESIDE),
    ]
    return any(
        needs_the_whole_text(line.body[:60]) and begins_as_instruction(line.body) or _REWRITES.match(line.body)
        for line in outside
    )
