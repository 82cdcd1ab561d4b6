"""Whether what was found can be trusted: two readings of a prompt, by its words and by its shape, are compared.

A wrong guess costs an answer, "plain" only time. So what is doubtful is given up.
"""

from __future__ import annotations

import re

from rapid_integrations.prompt.segmentation.blocks import is_a_chat, is_of_tools
from rapid_integrations.prompt.segmentation.instructions import (
    addresses_somebody,
    begins_as_instruction,
    instruction_share,
    needs_the_whole_text,
    reads_as_instruction,
    tells_of_oneself,
)
from rapid_integrations.prompt.segmentation.lexicon import ROLES, SPEAKERS
from rapid_integrations.prompt.segmentation.marks import CONTROL
from rapid_integrations.prompt.segmentation.shape import Line, Piece, asks, is_repeated, lines_of, sentences_of, settled
from rapid_integrations.prompt.segmentation.shaped import of_a_template, shaped_block
from rapid_integrations.prompt.segmentation.spans import Segmentation, Span, trimmed

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
        if (within := peeled(text, span, asked.query, *_bounded(text, span))) is not None:
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
    within = peeled(text, span, query, *_bounded(text, span))
    weak = found.method == "heuristic" and not labelled
    if within is None or (weak and (_is_a_list(text[slice(*within)]) or _of_everything(text, begin, within))):
        return None
    if _unexplained(text, begin, stop, span, query) > _MOST_UNEXPLAINED:
        return None
    return Segmentation(found.method, (within,), query)


def peeled(text: str, span: Span, query: str, sure_start: bool, sure_end: bool) -> Span | None:
    """Return the span without what may be a template's at its edges, None if the question stands within.

    Args:
        text: of which the span is a part.
        span: of the context.
        query: the question.
        sure_start: whether a label, tag or fence stands right before the span.
        sure_end: the same behind it.
    """
    start, end = span
    if len(query) >= 12:
        within = text.rfind(query, start, end)
        if within >= 0:
            if end - within > (end - start) * _NEAR:
                return None
            end, sure_end = within, False
    start, end = _between_tokens(text, start, end)
    if not sure_end:
        end = _before_a_question(text, start, end)
    elif line := _UNDERLINE.match(text, end):
        title = text.rfind("\n", start, end)
        end = title if 0 < title and end - title - 1 == len(line[0].strip()) else end
    end = _before_fair_lock(text, start, end, query)
    room = int((end - start) * _LOST)
    start = _behind_the_opening(text, start, min(end, start + room), sure_start)
    end = _before_the_closing(text, start, max(start, end - room), end, sure_end)
    end = _before_instructions(text, start, end)
    listed = _BULLET.match(text, start, end)
    after = start if sure_start and not listed else _behind_a_head(text, start, end)
    if after is None or (after := _behind_a_list(text, after, end)) is None:
        return None
    start = after
    start, end = trimmed(text, start, end)
    for _ in range(3):
        opening = _QUOTING if sure_start else _OPENING
        if (found := opening.match(text, start, min(end, start + 60))) and found.end() > start:
            start = found.end()
    if found := _CLOSING.search(text, max(start, end - 60), end):
        end = found.start()
    return trimmed(text, start, end)


def _behind_the_opening(text: str, start: int, limit: int, sure: bool) -> int:
    """Return where a context starts without the short lines before `limit` that may be its title."""
    lines = lines_of(text, start, limit)[:-1]
    usual = _usual_length(text[limit : limit + 8 * _BESIDE])
    if not sure:
        for line in reversed(lines):
            if line.label and not is_repeated(text, line.label[1], 1) and ROLES["context"].search(line.label[1]):
                return line.end if line.heads else line.start + line.said.index(line.label[0]) + len(line.label[0])
    dropped = 0
    for number, line in enumerate(lines):
        apart = number + 1 < len(lines) and lines[number + 1].blank
        most = (
            min(_SHORT_LINE, usual) if not sure else min(_SHORT_LINE // 2, usual) if apart or usual < _SHORT_LINE else 0
        )
        short = dropped < 2 and len(line.body) <= most
        if not (line.blank or line.drawn or short or (of_a_template(line) and not sure)):
            break
        dropped += not line.blank and not line.drawn and not of_a_template(line)
        start = line.end + 1
        if dropped and not apart and number + 1 < len(lines) and len(lines[number + 1].body) > most:
            break
    return start


def _before_the_closing(text: str, start: int, limit: int, end: int, sure: bool) -> int:
    """Return where a context that starts at `start` ends without the short lines behind `limit` that may close it."""
    dropped = 0
    most = min(2 * _SHORT_LINE, _usual_length(text[max(start, limit - 8 * _BESIDE) : limit]))
    for line in reversed(lines_of(text, limit, end)[1:]):
        short = dropped < 3 and len(line.body) <= most and not sure
        heads = line.heads and not sure
        if not (line.blank or line.drawn or heads or reads_as_instruction(line.body) or short):
            break
        dropped += not line.blank and not line.drawn
        end = line.start
    return end


def _between_tokens(text: str, start: int, end: int) -> Span:
    """Return the span without what stands beyond a chat template's tokens in it, if there are others around it."""
    if not (CONTROL.search(text, end) or CONTROL.search(text, 0, start)):
        return start, end
    third = (end - start) // 3
    for token in CONTROL.finditer(text, start, start + third):
        start = token.end()
    token_behind = CONTROL.search(text, end - third, end)
    return start, token_behind.start() if token_behind else end


def _before_a_question(text: str, start: int, end: int) -> int:
    """Return where a context ends without sentences at its end that ask: nobody knows whose they are."""
    body = text[max(start, end - _SHORT_LINE * 3) : end]
    said = sentences_of(body.rsplit("\n", 1)[-1])
    while said and asks(said[-1]):
        end = text.rindex(said.pop(), start, end)
    return end


def _usual_length(text: str) -> float:
    """Return how short a line must be to look strange among those of `text`, in characters."""
    lengths = sorted(len(line) for line in text.split("\n")[1:-1] if line.strip())
    if len(lengths) < 4:
        return _SHORT_LINE
    shortest = lengths[len(lengths) // 10]
    return 0.6 * shortest if shortest >= _LONG_LINE else 4 * _SHORT_LINE


def _before_fair_lock(text: str, start: int, end: int, query: str) -> int:
    """Return where a context ends above questions that were answered, and have the label of the last one."""
    at = text.rfind(query, end)
    line = text[text.rfind("\n", 0, at) + 1 : at] if at >= 0 else ""
    label = Line(0, len(line), line + " ").label
    if label is None or label[1].casefold() not in SPEAKERS:
        return end
    found = [
        each.start()
        for each in re.finditer(rf"^[^\w\n]{{0,6}}{re.escape(label[1])}[ \t]?[:：]", text[start:end], re.MULTILINE)
    ]
    return start + found[0] if 0 < len(found) <= 8 and found[0] > (1 - _NEAR) * (end - start) else end


def _before_instructions(text: str, start: int, end: int) -> int:
    """Return where a context ends above a line that tells the model its task and the rules below it."""
    lines = lines_of(text, max(start, end - min(_RULES, (end - start) // 3)), end)[1:]
    for number, line in enumerate(lines):
        told = len(line.body) <= 3 * _SHORT_LINE and addresses_somebody(line.body)
        if (
            told
            and any(begins_as_instruction(said) for said in sentences_of(line.body))
            and not line.said[:1].isspace()
        ):
            if all(each.blank or _BULLET.match(each.said) or of_a_template(each) for each in lines[number + 1 :]):
                return line.start
    return end


def _behind_a_head(text: str, start: int, end: int) -> int | None:
    """Return where a context starts below short lines that a rule or a title of its own ends, None if it's unclear."""
    lines = lines_of(text, start, min(end, start + min(_RULES, (end - start) // 3)))[:-1]
    found = start
    for number, line in enumerate(lines):
        apart = 0 < number < len(lines) - 1 and lines[number - 1].blank and lines[number + 1].blank
        if number and (line.drawn or (apart and (line.heads or _FOLLOWS.search(line.body)))):
            found = line.end + 1
        if not (line.blank or line.drawn or of_a_template(line) or _BULLET.match(line.said) or _is_a_value(line)):
            if not _FOLLOWS.search(line.body):
                break
    return found if found - start <= 2 * _LOST * (end - start) else None


def _is_a_value(line: Line) -> bool:
    return line.label is not None and len(line.body) <= 60


def _behind_a_list(text: str, start: int, end: int) -> int | None:
    """Return where a context starts behind a list of instructions, None if the list is a large part of it."""
    lines = [line for line in lines_of(text, start, min(end, start + 4 * _BESIDE))[:-1] if not line.blank]
    if len(lines) < 3 or not _BULLET.match(lines[0].said):
        return start
    last = next((number for number, line in enumerate(lines) if not _BULLET.match(line.said)), len(lines))
    if last == len(lines):
        return start  # all of it is a list
    if lines[last - 1].end - start > 2 * _LOST * (end - start):
        return None
    return lines[last].end + 1 if len(lines[last].body) <= _SHORT_LINE else lines[last].start


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


def _bounded(text: str, span: Span) -> tuple[bool, bool]:
    """Return whether a label, tag or fence stands right before a span, and right behind it."""
    before = text[max(0, span[0] - 300) : span[0]].rstrip(" \t\r\n").rsplit("\n", 1)[-1]
    after = text[span[1] : span[1] + 300].strip(" \t\r\n").split("\n", 1)[0]
    above, below = Line(0, 0, before), Line(0, 0, after)
    closing = before.lstrip()[:2] == "</" or before.lstrip()[:3] in ("<</", "<|e", "[/I")
    opened = not closing and (above.heads or above.drawn or bool(_TAG_END.search(before)))
    if not opened and before and text[span[0] - 1 : span[0]] != "\n":
        opened = bool(above.label)
    asked = below.label is not None and (asks(after) or bool(ROLES["question"].search(below.label[1])))
    closed = below.drawn or below.heads or asked or after[:1] == "<"
    return opened, closed


def _convinces(text: str, begin: int, span: Span, asked: Piece) -> bool:
    body = text[span[0] : span[1]]
    if instruction_share(body) > 0.15 or is_a_chat(body) or tells_of_oneself(body):
        return False
    if is_of_tools(text[begin : span[0]]) or needs_the_whole_text(asked.query):
        return False
    return asks(asked.query)


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
