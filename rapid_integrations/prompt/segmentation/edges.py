"""Where a context begins and ends, to the safe side: what may be a template's at its edges is left outside of it.

Both models read what is outside, so a lost paragraph of the document costs next to nothing, while an instruction
within the context may be compressed away.
"""

from __future__ import annotations

import re
from collections import Counter

from rapid_integrations.prompt.segmentation.instructions import (
    addresses_somebody,
    begins_as_instruction,
    reads_as_instruction,
)
from rapid_integrations.prompt.segmentation.lexicon import SPEAKERS
from rapid_integrations.prompt.segmentation.marks import CONTROL
from rapid_integrations.prompt.segmentation.roles import role_of
from rapid_integrations.prompt.segmentation.shape import Line, asks, is_repeated, lines_of, sentences_of, short_among
from rapid_integrations.prompt.segmentation.shaped import is_plainly_of_a_template, of_a_template
from rapid_integrations.prompt.segmentation.spans import Span, trimmed

_ROOM = 0.08  # share of a context that each of its edges may lose to both models
_RULES = 2000  # characters of rules beside a context
_NEAR = 0.3  # share of a span behind which a question in it is a template's, not a document's
_SHORT_VALUE = 60  # characters of "title: ..." and the like
_SENTENCE = 360  # characters
_BULLET = re.compile(r"\s*(?:[-*+•–·◦▪]|\d{1,4}[.)])[ \t]+")
_MARKDOWN_HEADING = re.compile(r"[ \t]*(#{1,6})[ \t]+(\S.*)")
_HEADINGS = re.compile(r"^(#{1,6})[ \t]+\S", re.MULTILINE)
_UNDERLINE = re.compile(r"[=-]{3,}\s*")
_CHAPTERS = 3  # headings of one level by which a document is known to be in chapters
_FOLLOWS = re.compile(r"(?:follows?|below|folg(?:t|en)|suit|suivent|sigue|segue|volgt)[.:]?$", re.IGNORECASE)
_POINTS_BACK = re.compile(
    r"(?:the )?above (?:is|are|was|were)\b|(?:das|der|die) obige\b|ce qui précède\b|lo anterior\b|以上[是为為がはの]",
    re.IGNORECASE,
)
_PARAGRAPH = re.compile(r"\n[ \t\r]*\n")
_SENTENCE_GAP = re.compile(r"[.!?][\"”»)]*\s+|[。！？]")
_TAG_END = re.compile(r"[>\]][ \t]*$")
_MEMBERS = re.compile(
    r"[\[\]{},:\s]*(?:(?:\"\w[\w ]{0,30}\"[ \t]*:\s*)?(?:\"[^\"\n]{0,60}\"|-?\d+(?:\.\d+)?)[ \t]*,\s*)*"
    r"\"\w[\w ]{0,30}\"[ \t]*:\s*[\[{\s]*\"?|[\[{][\s\[{]*\""
)
_OPENING = re.compile(
    r"\s*(?:[<>{\"'“„«`]{1,6}|\[?\(?\w{1,3}[.)][ \t]+(?=[\w ]{1,24}:)|[^\W\d_][\w ()]{0,24}[ \t]?(?:[:：]|=)(?=\s))\s*"
)
_QUOTING = re.compile(r"(?:\w{1,20}[ \t]?=[ \t]?(?=[\"'{])|>[ \t]|[{\"'“„«`]{1,6}|<{2,6})\s*")
_CLOSING = re.compile(r"[\"”»]\.?\s*$|\s[^\W\d_]{2,14}[ \t]?[:：|=]\s*$|\s*[},<\"'”»`>\]|]{1,6}\s*$")


def inner(text: str, span: Span, query: str, marked: bool = False) -> Span | None:
    """Return the span without what may be a template's at its edges, None if the question stands deep within it.

    If marks bound the span (`marked`), an edge with a label, a tag or a fence beside it stays where it is, unless the
    lines there are plainly a template's.
    """
    start, end = span
    if len(query) >= 12 and (within := text.rfind(query, start, end)) >= 0:
        if end - within > (end - start) * _NEAR:
            return None
        end = within
    start, end = _between_tokens(text, start, end)
    opened, closed = _opened(text, start), _closed(text, end)
    opened_by_mark, closed_by_mark = marked and opened, marked and closed
    closed = closed or (marked and not text[end:].strip())
    end = _before_turns(text, start, end, query)
    room = int((end - start) * _ROOM)
    levels = _levels(text, start + room, end - room)
    end = _before_a_last_request(text, end - room, _above_an_underlined_title(text, end - room, end))
    end = _inner_end(text, end, room, closed, closed_by_mark, levels)
    end = _above_rules(text, start, end)
    bound = start if opened_by_mark else None
    head = _inner_start(text, start, room, opened, opened_by_mark, levels)
    if _BULLET.match(text, start, end) or not opened:
        below = _below_rules(text, start, end)
        if below is None:
            return None
        head = max(head, below)
    below = _behind_a_list(text, head, end)
    if below is None:
        return None
    start, end = trimmed(text, below, end)
    label = Line(start, end, text[start:end].split("\n", 1)[0]).label
    if label is not None and start != bound and not is_repeated(text, label[1], 1):
        start += label.end()
    if members := _MEMBERS.match(text, start, min(end, start + 300)):
        start, opened = members.end(), False
    for _ in range(3):
        opening = _QUOTING if opened else _OPENING
        if (found := opening.match(text, start, min(end, start + 60))) and found.end() > start:
            start = found.end()
    if found := _CLOSING.search(text, max(start, end - 60), end):
        end = found.start()
    return trimmed(text, start, end)


def _opened(text: str, start: int) -> bool:
    """Whether a label, an opening tag or a fence stands right before a context."""
    before = text[max(0, start - 300) : start].rstrip(" \t\r\n").rsplit("\n", 1)[-1]
    above = Line(0, 0, before)
    if before.lstrip()[:2] == "</" or before.lstrip()[:3] in ("<</", "<|e", "[/I"):
        return False
    if above.heads or above.drawn or _TAG_END.search(before):
        return True
    return bool(before) and text[start - 1 : start] != "\n" and above.label is not None


def _closed(text: str, end: int) -> bool:
    """Whether a closing tag, a fence or the label of a question or an answer stands right behind a context."""
    after = text[end : end + 300].strip(" \t\r\n").split("\n", 1)[0]
    below = Line(0, 0, after)
    if below.drawn or after[:1] == "<":
        return True
    named = below.label is not None and role_of(below.label[1]) in ("question", "answer")
    return named and "\n" in text[end : end + len(text[end : end + 300]) - len(text[end : end + 300].lstrip())]


def _levels(text: str, start: int, end: int) -> frozenset[str]:
    """Return the levels of headings, "#" to "######", by which a Markdown document is in chapters."""
    count = Counter(heading[1] for heading in _HEADINGS.finditer(text, start, end))
    return frozenset(level for level, times in count.items() if times >= _CHAPTERS)


def _is_of_a_chapter(line: Line, levels: frozenset[str]) -> bool:
    """Whether a line is one more heading of a document in chapters, and names no part of a prompt."""
    heading = _MARKDOWN_HEADING.fullmatch(line.said) if levels else None
    if heading is None or heading[1] not in levels:
        return False
    title = heading[2].strip()
    return not (role_of(title) or reads_as_instruction(title) or begins_as_instruction(title))


def _inner_start(text: str, start: int, room: int, opened: bool, by_mark: bool, levels: frozenset[str]) -> int:
    """Return where a context starts behind the last line in its first `room` characters that may be a template's."""
    lines = lines_of(text, start, start + room)[:-1]
    short = 0.0 if by_mark else short_among(lines_of(text, start + room, start + 10 * room)[1:-1])
    found = start
    repeated: dict[str, bool] = {}  # looking through all of the text for each line would take too long
    for line in lines:
        titles = _is_of_a_chapter(line, levels) or (by_mark and _MARKDOWN_HEADING.match(line.body))
        of_template = not titles and (is_plainly_of_a_template(line) if by_mark else of_a_template(line))
        if not line.blank and (
            of_template or _is_a_value(text, line, repeated) or (len(line.body) < short and not titles)
        ):
            found = line.end + 1
    if found > start:
        return found
    if by_mark:
        return start
    if opened:
        titled = len(lines) > 1 and lines[1].blank and len(lines[0].body) <= _SHORT_VALUE
        return lines[1].end + 1 if titled else start
    return _next_boundary(text, start, start + room)


def _inner_end(text: str, end: int, room: int, closed: bool, by_mark: bool, levels: frozenset[str]) -> int:
    """Return where a context ends above the first line in its last `room` characters that may be a template's."""
    floor = end - room
    lines = lines_of(text, floor, end)[1:]
    after = text[end : end + 300].strip().split("\n", 1)[0]
    label = Line(0, len(after), after).label
    # Above a question's label there may be one more sentence of the template.
    enclosed = by_mark and not (label is not None and role_of(label[1]) == "question")
    short = 0.0 if enclosed else short_among(lines_of(text, floor - 9 * room, floor)[1:-1])
    for line in lines:
        if _is_of_a_chapter(line, levels):
            continue
        of_template = is_plainly_of_a_template(line) if by_mark else of_a_template(line)
        points_back = len(line.body) <= _SHORT_VALUE and _POINTS_BACK.match(line.body)
        if not line.blank and (of_template or points_back or len(line.body) < short):
            return line.start
    if by_mark:
        return end
    while lines and lines[-1].blank:
        lines.pop()
    if closed:
        titled = len(lines) > 1 and lines[-2].blank and len(lines[-1].body) <= _SHORT_VALUE
        return lines[-1].start if titled else end
    return _last_boundary(text, floor, end)


def _above_an_underlined_title(text: str, floor: int, end: int) -> int:
    """Return where a context ends above the title of a template's part, whose underline stands behind it."""
    behind = text[end : end + _SHORT_VALUE].strip(" \t\r\n").split("\n", 1)[0]
    line = text.rfind("\n", floor, end) + 1
    title = text[line:end].strip()
    named = line and len(title) <= _SHORT_VALUE and title[-1:] not in tuple(".!?,;") and role_of(title)
    return line if named and _UNDERLINE.fullmatch(behind) else end


def _before_a_last_request(text: str, floor: int, end: int) -> int:
    """Return where a context ends before a sentence behind it on its last line, if that ends the prompt and asks."""
    if text[end:].strip():
        return end
    gaps = list(_SENTENCE_GAP.finditer(text, max(floor, text.rfind("\n", floor, end)), end))
    if not gaps or not (said := text[gaps[-1].end() : end].strip()):
        return end
    return gaps[-1].end() if asks(said) or reads_as_instruction(said) else end


def _next_boundary(text: str, start: int, limit: int) -> int:
    """Return the end of the first paragraph, else line, else sentence that ends before `limit`."""
    if found := _PARAGRAPH.search(text, start, limit):
        return found.end()
    if (line := text.find("\n", start, limit)) >= 0:
        return line + 1
    found = _SENTENCE_GAP.search(text, start, min(limit, start + _SENTENCE))
    return found.end() if found else start


def _last_boundary(text: str, floor: int, end: int) -> int:
    """Return where the last paragraph, else line, else sentence begins behind `floor`."""
    for pattern in (_PARAGRAPH, re.compile("\n"), _SENTENCE_GAP):
        found = list(pattern.finditer(text, floor, end))
        if found:
            return found[-1].end() if pattern is _SENTENCE_GAP else found[-1].start()
    return end


def _is_a_value(text: str, line: Line, repeated: dict[str, bool]) -> bool:
    """Whether a line is a field of what describes a document ("title: ..."), which the text does not repeat.

    `repeated` keeps what was found of a label.
    """
    if line.label is None or len(line.body) > _SHORT_VALUE:
        return False
    name = line.label[1]
    if name not in repeated:
        repeated[name] = is_repeated(text, name)
    return not repeated[name]


def _between_tokens(text: str, start: int, end: int) -> Span:
    """Return the span without what stands beyond a chat template's tokens in it, if there are others around it."""
    if not (CONTROL.search(text, end) or CONTROL.search(text, 0, start)):
        return start, end
    third = (end - start) // 3
    for token in CONTROL.finditer(text, start, start + third):
        start = token.end()
    behind = CONTROL.search(text, end - third, end)
    return start, behind.start() if behind else end


def _before_turns(text: str, start: int, end: int, query: str) -> int:
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


def _above_rules(text: str, start: int, end: int) -> int:
    """Return where a context ends above a line that tells the model its task and the rules below it."""
    lines = lines_of(text, max(start, end - min(_RULES, (end - start) // 3)), end)[1:]
    for number, line in enumerate(lines):
        told = len(line.body) <= _SENTENCE and addresses_somebody(line.body) and not line.said[:1].isspace()
        if told and any(begins_as_instruction(said) for said in sentences_of(line.body)):
            if all(each.blank or _BULLET.match(each.said) or of_a_template(each) for each in lines[number + 1 :]):
                return line.start
    return end


def _below_rules(text: str, start: int, end: int) -> int | None:
    """Return where a context starts below rules that an ornament or a title ends, None if they are a part of it."""
    lines = lines_of(text, start, min(end, start + min(_RULES, (end - start) // 3)))[:-1]
    found, repeated = start, dict[str, bool]()
    for number, line in enumerate(lines):
        apart = 0 < number < len(lines) - 1 and lines[number - 1].blank and lines[number + 1].blank
        if number and (line.drawn or (apart and (line.heads or _FOLLOWS.search(line.body)))):
            found = line.end + 1
        rule = line.blank or line.drawn or of_a_template(line) or bool(_BULLET.match(line.said))
        rule = rule or _is_a_value(text, line, repeated)
        if not rule and not _FOLLOWS.search(line.body):
            break
    return found if found - start <= 2 * _ROOM * (end - start) else None


def _behind_a_list(text: str, start: int, end: int) -> int | None:
    """Return where a context starts behind a list of instructions, None if the list is a large part of it."""
    lines = [line for line in lines_of(text, start, min(end, start + 2 * _RULES))[:-1] if not line.blank]
    if len(lines) < 3 or not _BULLET.match(lines[0].said):
        return start
    last = next((number for number, line in enumerate(lines) if not _BULLET.match(line.said)), len(lines))
    if last == len(lines):
        return start  # all of it is a list
    if lines[last - 1].end - start > 2 * _ROOM * (end - start):
        return None
    return lines[last].start
