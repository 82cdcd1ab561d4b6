"""Candidates for the context: what stands between tags, between fences, under a label, below an announcement.

Each is found with the question that goes with it, before or behind. Where it is unclear what belongs to a context's
edge, it is left out of it: both readers then have it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rapid_integrations.segmentation.instructions import (
    begins_as_instruction,
    instruction_share,
    is_a_placeholder,
    needs_the_whole_text,
    reads_as_instruction,
    tells_of_oneself,
)
from rapid_integrations.segmentation.lexicon import ANNOUNCES_CONTEXT, ROLES, SPEAKERS, STRONG_CONTEXT
from rapid_integrations.segmentation.marks import CONTROL, Mark
from rapid_integrations.segmentation.question import (
    MARKS_OF_A_QUESTION,
    Asked,
    content_of,
    ends_asking,
    is_open,
    labelled_question,
    may_be_asked,
    quoted_question,
    region_question,
    task_asked,
    unlabelled_question,
)
from rapid_integrations.segmentation.spans import (
    MAX_QUERY_CHARACTERS,
    MAX_TAIL_CHARACTERS,
    MIN_BLOCK_CHARACTERS,
    Span,
    trimmed,
)

_TRIES = 6  # openers that are tried
_HEAD_LINES = 60  # lines of instructions before a context that only a sentence announces
_HEAD_CHARACTERS = 8000
_SHORT = 500  # characters: a labelled block that is shorter, before another one, is an example or a description
_GIVEN = re.compile(
    r"existing|original|previous|prior|current|initial|draft|student|submi|candidate|bestehend|bisherig|existant|"
    r"précédent|"
    r"anterior|existente|precedente|bestaand|предыдущ|现有|已有|我的|既存|기존",
    re.IGNORECASE,
)
_MOST_IN_TAGS = 0.6  # share of sentences that instruct, beyond which tags hold instructions
_DIGITS = re.compile(r"\d+")
_OF_A_PASSAGE = frozenset(
    "document doc source passage chunk item article result file snippet excerpt entry page dokument quelle "
    "documento fuente fonte "
    "extrait fragmento bron".split()
)


@dataclass(frozen=True)
class Block:
    """A context: its spans, where the mark that opens it begins, what is asked, and how it was found."""

    span: Span
    opener: int
    asked: Asked
    method: str


def tail_end(text: str) -> int:
    """Return where the text ends but for white space and control tokens of a chat template."""
    end = len(text.rstrip())
    for _ in range(12):
        tail = text[max(0, end - 60) : end]
        tokens = list(CONTROL.finditer(tail))
        if not tokens:
            break
        last = tokens[-1]
        rest = tail[last.end() :].strip()
        if rest not in ("", "assistant", "model", "user"):
            break
        end = len(text[: end - len(tail) + last.start()].rstrip())
    return end


# --- between tags ---------------------------------------------------------------------------------------------------


def tagged(text: str, marks: Sequence[Mark], begin: int) -> Iterator[Block]:
    """From the first opening tag that is ever closed to the last tag that closes it."""
    closes: dict[tuple[str, str], list[Mark]] = {}
    for mark in marks:
        if mark.kind == "close" and mark.role == "context":
            closes.setdefault((mark.name, mark.style[:1]), []).append(mark)
    seen: set[str] = set()
    tries = 0
    for mark in marks:
        if mark.start < begin or mark.role != "context" or mark.name in seen:
            continue
        if mark.kind != "open" and not (mark.kind == "label" and mark.style[:1] == "["):
            continue
        ending = closes.get((mark.name, mark.style[:1]), [])
        last = next((each for each in reversed(ending) if each.alone and each.start >= mark.end), None)
        last = last or next((each for each in reversed(ending) if each.start >= mark.end + MIN_BLOCK_CHARACTERS), None)
        if last is None or last.start - mark.end < MIN_BLOCK_CHARACTERS:
            continue
        first = next((each for each in ending if each.start >= mark.end), last)
        if not mark.alone and first.start - mark.end < 20 and first is not last:
            continue  # "inside <context></context> tags"
        if not mark.alone and re.match(
            r"[ \t]*(?:tags?\b|xml\b|and\b|block|section|标签)", text[mark.end : mark.end + 12], re.I
        ):
            continue
        seen.add(mark.name)
        tries += 1
        if asked := around(text, marks, begin, mark.start, last.end, tail_end(text)):
            span = trimmed(text, mark.end, last.start)
            if instruction_share(text[span[0] : span[1]]) > _MOST_IN_TAGS:
                continue
            if mark.name in _OF_A_PASSAGE and first is not last and _opens_between(marks, mark, first, last):
                span = trimmed(
                    text, mark.start, last.end
                )  # one of several without a tag around them: their tags tell them apart
            yield Block(span, mark.start, asked, "delimiters")
        if tries >= _TRIES:
            return


def _opens_between(marks: Sequence[Mark], opener: Mark, first: Mark, last: Mark) -> bool:
    return any(
        mark.kind == "open" and mark.name == opener.name and first.end <= mark.start < last.start
        for mark in marks[: marks.index(last)]
    )


def around(text: str, marks: Sequence[Mark], begin: int, start: int, end: int, stop: int) -> Asked | None:
    """Return the question behind a context that ends at `end`, or else before the one that starts at `start`."""
    return (
        labelled_question(text, marks, end, stop, ("question",))
        or labelled_question(text, marks, begin, start, ("question",), speakers=False)
        or labelled_question(text, marks, end, stop, ("request",))
        or quoted_question(text, end, stop)
        or unlabelled_question(text, marks, max(end, stop - MAX_TAIL_CHARACTERS), stop)
        or labelled_question(text, marks, begin, start, ("question", "request"))
        or quoted_question(text, max(begin, start - MAX_TAIL_CHARACTERS), start)
        or task_asked(text, marks, end, stop)
        or _unlabelled_before(text, marks, begin, start)
    )


def _unlabelled_before(text: str, marks: Sequence[Mark], begin: int, start: int) -> Asked | None:
    asked = unlabelled_question(text, marks, max(begin, start - MAX_TAIL_CHARACTERS), start)
    return asked if asked and ends_asking(asked.query) else None


# --- between fences -------------------------------------------------------------------------------------------------


def fenced(text: str, marks: Sequence[Mark], begin: int) -> Iterator[Block]:
    """From a fence below something that names or announces a context to the last fence of its kind."""
    fences = [(index, mark) for index, mark in enumerate(marks) if mark.kind == "fence" and mark.start >= begin]
    by_kind: dict[str, list[Mark]] = {}
    for _, mark in fences:
        by_kind.setdefault(mark.name, []).append(mark)
    stop = tail_end(text)
    tries = 0
    tried: set[str] = set()
    for _, mark in fences:
        if mark.name in tried or not _opens_a_context(text, marks, mark):
            continue
        tried.add(mark.name)
        tries += 1
        if tries > _TRIES:
            return
        if block := _closed(text, marks, begin, mark, by_kind[mark.name], stop):
            yield block


def _opens_a_context(text: str, marks: Sequence[Mark], fence: Mark) -> bool:
    if len(fence.name) >= 5 and fence.name[0] in "-=_*":
        return True
    before = text[max(0, fence.start - 400) : fence.start].rstrip(" \t\r\n*_")
    line = before.rsplit("\n", 1)[-1]
    return bool(STRONG_CONTEXT.search(line) or ANNOUNCES_CONTEXT.search(line)) or any(
        mark.role == "context"
        and mark.kind == "label"
        and 0 <= fence.start - mark.end < 200
        and not text[mark.end : fence.start].strip("\r\n").count("\n")
        for mark in marks[:40]
    )


def _closed(
    text: str, marks: Sequence[Mark], begin: int, opener: Mark, fences: Sequence[Mark], stop: int
) -> Block | None:
    closes = [mark for mark in fences if mark.start >= opener.end]
    before = labelled_question(text, marks, begin, opener.start, ("question",))
    while closes:
        close = closes.pop()
        if close.start - opener.end < MIN_BLOCK_CHARACTERS:
            return None
        behind = text[close.end : stop].strip()
        if not behind and closes and (named := _named_after(marks, closes[-1])) and close.start - closes[-1].end < 4000:
            if named.role in ("answer", "question", "instruction", "history"):
                continue  # a fence ends the whole prompt: "----\nExisting answer: ...\n----"
        if close.name[2] not in "-=_*" and closes and closes[-1].style and close.start - closes[-1].end < 2000:
            closes.pop()  # ```json ... ``` behind the context is its own block
            continue
        asked = around(text, marks, begin, opener.start, close.end, stop)
        if asked is None:
            return None
        if before is None and asked.start < opener.start and closes:
            continue
        return Block(trimmed(text, opener.end, close.start), opener.start, asked, "delimiters")
    return None


def _named_after(marks: Sequence[Mark], fence: Mark) -> Mark | None:
    return next((mark for mark in marks if mark.kind == "label" and 0 <= mark.start - fence.end <= 4), None)


# --- under a label --------------------------------------------------------------------------------------------------


def labelled(text: str, marks: Sequence[Mark], begin: int) -> Iterator[Block]:
    """Under a label that names a context, as far as the labels, the question and the instructions at the end."""
    openers = [mark for mark in marks if mark.kind == "label" and mark.role == "context" and mark.start >= begin]
    stop = tail_end(text)
    for number, opener in enumerate(openers[:_TRIES]):
        between = text[opener.end : openers[number + 1].start] if number + 1 < len(openers) else ""
        described = any(
            mark.role in ("question", "answer", "instruction", "example") for mark in _within(marks, opener, between)
        )
        if between and len(between) < (_SHORT if described or reads_as_instruction(between) else 60):
            following = next(_under(text, marks, begin, openers[number + 1], stop), None)
            if following is not None:
                yield following
                continue
        yield from _under(text, marks, begin, opener, stop)


def _within(marks: Sequence[Mark], opener: Mark, between: str) -> list[Mark]:
    return [mark for mark in marks if opener.end <= mark.start < opener.end + len(between)]


def _under(text: str, marks: Sequence[Mark], begin: int, opener: Mark, stop: int) -> Iterator[Block]:
    strong = bool(STRONG_CONTEXT.search(opener.name))
    method = "delimiters" if opener.style or strong or len(opener.name.split()) < 3 else "heuristic"
    # The first of several numbered labels is a passage's own; one that stands alone names the context.
    start = opener.start if _is_one_of_several(marks, opener) else opener.end
    block = below(text, marks, begin, opener.start, start, stop, opener.style, method)
    if block is None:
        return
    start, end = block.span
    if not strong and ((end - start) * 2 < len(text) or is_of_tools(text[begin : opener.end])):
        return
    if instruction_share(text[start:end]) > (0.6 if strong else 0.4):
        return
    yield block


def _is_one_of_several(marks: Sequence[Mark], opener: Mark) -> bool:
    if not any(character.isdigit() for character in opener.name):
        return False
    plain = _DIGITS.sub("", opener.name)
    return any(
        mark is not opener and _DIGITS.sub("", mark.name) == plain and mark.name != opener.name for mark in marks
    )


def below(
    text: str,
    marks: Sequence[Mark],
    begin: int,
    opener: int,
    start: int,
    stop: int,
    style: str,
    method: str = "delimiters",
) -> Block | None:
    """Return the context that starts at `start`: its end is found from the end of the text."""
    before = labelled_question(text, marks, begin, opener, ("question",), speakers=False)
    end, asked = _walk_back(text, marks, start, stop, style, before)
    before = before or quoted_question(text, max(begin, opener - MAX_TAIL_CHARACTERS), opener)
    before = before or labelled_question(text, marks, begin, opener, ("question", "request"))
    if asked is None and before is None:
        before = _unlabelled_before(text, marks, begin, opener)
        if before is None:
            end, asked = _unlabelled_end(text, marks, start, end)
            if asked is None:
                return None
    asked = before if before is not None and (asked is None or not asked.labelled) else asked
    assert asked is not None
    span = trimmed(text, start, end)
    return Block(span, opener, asked, method) if span[1] - span[0] >= MIN_BLOCK_CHARACTERS else None


def _walk_back(
    text: str, marks: Sequence[Mark], start: int, stop: int, style: str, before: Asked | None
) -> tuple[int, Asked | None]:
    """Return where the context ends, and the labelled question behind it."""
    end, asked, styles = stop, None, {style}
    tentative = end
    for index in range(len(marks) - 1, -1, -1):
        mark = marks[index]
        if mark.start < start or stop - mark.start > MAX_TAIL_CHARACTERS:
            break
        if mark.start >= tentative:
            continue
        content = text[mark.end : tentative].strip(" \t\r\n*_`\"'")
        if asked and mark.name in SPEAKERS and (history := _history_before(marks, index, stop)):
            tentative = end = history.start
            continue
        if asked and mark.role in ("request", "question", "history") and mark.kind == "label" and not content:
            tentative = end = mark.start
            continue
        if mark.kind == "fence":
            if not content:
                tentative = mark.start
                if asked or before:
                    end = tentative
            continue
        if mark.role == "answer" and mark.kind == "label":
            if not content:
                tentative = end = mark.start
            elif _GIVEN.search(mark.name):
                tentative = mark.start
            elif asked is None and before is None and reads_as_instruction(content):
                tentative = mark.start
            else:
                break
        elif mark.role in ("question", "request") and mark.kind in ("label", "open"):
            query = content_of(text, marks, index, stop)
            if asked is not None and _same(query, asked.query) and query:
                tentative = end = mark.start  # "Original question: ...", then "Question: ..."
                continue
            if asked is not None:
                break
            if mark.role == "request" and not content:
                tentative = end = mark.start  # "Answer in German:" is an answer's cue
                continue
            if query and mark.kind == "label" and not may_be_asked(query):
                break  # a paragraph of the document that begins like a question's label
            if not query or len(content) > MAX_TAIL_CHARACTERS:
                break
            if mark.role == "request" and before is not None:
                break
            if before is not None and not _same(query, before.query):
                break
            if mark.kind == "label" and not is_open(text, marks, index, stop):
                break
            asked = Asked(query, mark.start, True)
            tentative = end = mark.start
            styles.add(mark.style)
        elif mark.role in ("instruction", "history", "example") and mark.kind in ("label", "open"):
            decorated = mark.style in styles and mark.style not in ("", "A")
            instructs = reads_as_instruction(content[:600]) or instruction_share(content) > 0.3
            told = mark.role == "history" and mark.alone and bool(asked)
            if not (decorated or instructs or told or (asked is None and before is None)):
                break
            if asked is None and before is None:
                asked = task_asked(text, marks, mark.start, stop)
            tentative = mark.start
            if asked or before:
                end = tentative
        elif mark.kind == "close" and mark.role in ("question", "instruction", "history"):
            continue
        elif mark.kind == "label" and mark.role == "context" and not content:
            tentative = end = mark.start  # "Relevant text, if any:" at the end is an answer's cue
        else:
            break
    return end, asked


def _history_before(marks: Sequence[Mark], index: int, stop: int) -> Mark | None:
    """Return the label of the chat history that the speaker `marks[index]` belongs to."""
    for mark in reversed(marks[:index]):
        if mark.role == "history" and mark.kind == "label" and mark.alone:
            return mark
        if mark.name not in SPEAKERS or stop - mark.start > MAX_TAIL_CHARACTERS:
            return None
    return None


def _same(one: str, other: str) -> bool:
    one, other = " ".join(one.split()).casefold(), " ".join(other.split()).casefold()
    return one == other or one in other or other in one


def _unlabelled_end(text: str, marks: Sequence[Mark], start: int, stop: int) -> tuple[int, Asked | None]:
    """Return where a context ends whose question is only a paragraph behind it, or a line behind a fence."""
    lowest = max(start, stop - MAX_TAIL_CHARACTERS)
    rules = [mark for mark in marks if mark.kind == "fence" and lowest <= mark.start < stop and mark.name[0] in "-=_*#"]
    if rules and stop - rules[-1].end <= 3 * MAX_QUERY_CHARACTERS and text[rules[-1].end : stop].strip():
        asked = region_question(text, marks, rules[-1].end, stop)
        if asked and (asked.labelled or ends_asking(asked.query)):
            return rules[-1].start, asked
    end = stop
    for _ in range(6):
        cut = max(text.rfind("\n\n", lowest, end), text.rfind("\n\r\n", lowest, end), text.rfind("\n \n", lowest, end))
        if cut < 0 or end - cut > MAX_QUERY_CHARACTERS:
            break
        piece = text[cut:end].strip()
        asks = any(sign in piece[-200:] for sign in MARKS_OF_A_QUESTION)
        if asks or not reads_as_instruction(piece):
            asked = unlabelled_question(text, marks, cut, end) if asks else None
            return (cut, asked) if asked and ends_asking(asked.query) else (end, None)
        end = cut
    return end, None


# --- below an announcement ------------------------------------------------------------------------------------------


def announced_start(text: str, begin: int, marks: Sequence[Mark]) -> tuple[int, int] | None:
    """Return where a sentence announces a context ("Use the following text ..."), and where the context starts.

    That is the first line behind it that does not itself instruct.
    """
    labels = {
        mark.start: mark
        for index, mark in enumerate(marks[:400])
        if not (mark.role == "question" and not is_open(text, marks, index, len(text)))
    }
    labels = {start: mark for start, mark in labels.items() if mark.kind in ("label", "fence")}
    position, cue, told = begin, -1, begin
    for _ in range(_HEAD_LINES):
        if position >= len(text) or position - begin > _HEAD_CHARACTERS:
            break
        end = text.find("\n", position)
        end = len(text) if end < 0 else end
        line = text[position:end].strip()
        own = position + len(text[position:end]) - len(text[position:end].lstrip())
        mark = labels.get(own)
        if not line or (mark is not None and mark.kind == "fence"):
            position = end + 1
            continue
        ahead = ANNOUNCES_CONTEXT.search(line) if len(line) <= 1500 else None
        instructs = (
            reads_as_instruction(line) or is_a_placeholder(line) or (len(line) <= 300 and begins_as_instruction(line))
        )
        if ahead and (instructs or cue < 0 or line[-1:] in ":：."):
            cue = position
        elif mark is not None and mark.role == "context" and cue >= 0:
            return cue, mark.end
        elif mark is not None and mark.role in ("instruction", "question", "request", "history"):
            pass
        elif not instructs and cue >= 0:
            return cue, position
        elif not instructs and position - told > 1500:
            break
        told = end
        position = end + 1
    return None


def announced(text: str, marks: Sequence[Mark], begin: int) -> Block | None:
    """Below a sentence that announces a context."""
    found = announced_start(text, begin, marks)
    if found is None:
        return None
    cue, start = found
    block = below(text, marks, begin, start, start, tail_end(text), "", "heuristic")
    if block is None or instruction_share(text[block.span[0] : block.span[1]]) > 0.35:
        return None
    if is_of_tools(text[begin:start]):
        return None
    if (block.span[1] - block.span[0]) * 3 < len(text) or is_a_chat(text[slice(*block.span)]):
        return None
    return block


_OF_TOOLS = re.compile(
    r"\b(?:tools?|functions?|thought|action|observation|schema|\w*sql\w*)\b|工具|ツール|도구", re.IGNORECASE
)
_TURN = re.compile(
    r"^[ \t]*[*#<\[]{0,3}(?:user|human|assistant|ai|bot|nutzer|benutzer|assistent|utilisateur|usuario|utente|"
    r"usuário|用户|助手|ユーザー|"
    r"アシスタント|사용자|пользователь|ассистент)[*\]>]{0,3}[ \t]*[:：]",
    re.IGNORECASE | re.MULTILINE,
)


def is_of_tools(text: str) -> bool:
    """Whether instructions speak of tools."""
    return bool(_OF_TOOLS.search(text))


def is_a_chat(text: str) -> bool:
    """Whether a text is turns of a user and an assistant."""
    return len(_TURN.findall(text[:20_000])) >= 4


def before_a_question(text: str, marks: Sequence[Mark], begin: int) -> Block | None:
    """Before a labelled question at the end: a text that instructions speak of, but that nothing names."""
    stop = tail_end(text)
    asked = labelled_question(text, marks, max(begin, stop - MAX_TAIL_CHARACTERS), stop, ("question", "request"))
    if asked is None or asked.start - begin < MIN_BLOCK_CHARACTERS:
        return None
    start, mentioned = begin, False
    for _ in range(_HEAD_LINES):
        end = text.find("\n", start)
        line = text[start : max(end, 0)]
        instructs = (
            reads_as_instruction(line) or is_a_placeholder(line) or (len(line) <= 300 and begins_as_instruction(line))
        )
        if end < 0 or start - begin > _HEAD_CHARACTERS or (line.strip() and not instructs):
            break
        mentioned = mentioned or bool(ROLES["context"].search(line))
        start = end + 1
    block = below(text, marks, begin, start, start, stop, "", "heuristic")
    if block is None or block.asked.start < block.span[1]:
        return None
    body = text[block.span[0] : block.span[1]]
    label = next((mark.name for mark in marks if mark.start == block.asked.start), "")
    if sum(1 for mark in marks if mark.name == label and mark.start < block.asked.start) >= 2:
        return None  # examples of questions
    if is_of_tools(text[begin:start]) or tells_of_oneself(body) or is_a_chat(body):
        return None
    return block if instruction_share(body) <= (0.25 if mentioned else 0.12) and len(body) * 3 >= len(text) else None


def is_about_everything(asked: Asked) -> bool:
    """Whether what is asked needs all of the context: only where nobody calls it a question."""
    return (
        not asked.labelled
        and needs_the_whole_text(asked.query)
        and not any(sign in asked.query for sign in MARKS_OF_A_QUESTION)
    )
