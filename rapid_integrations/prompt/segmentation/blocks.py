"""A candidate for the context, and the question that goes with it, before or behind.

Where it is unclear what belongs to a context's edge is for `edges` to say.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rapid_integrations.prompt.segmentation.instructions import (
    instruction_share,
    reads_as_instruction,
)
from rapid_integrations.prompt.segmentation.lexicon import SPEAKERS
from rapid_integrations.prompt.segmentation.marks import CONTROL, Mark
from rapid_integrations.prompt.segmentation.question import (
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
from rapid_integrations.prompt.segmentation.spans import (
    MAX_QUERY_CHARACTERS,
    MAX_TAIL_CHARACTERS,
    MIN_BLOCK_CHARACTERS,
    Span,
    trimmed,
)

_GIVEN = re.compile(
    r"existing|original|previous|prior|current|initial|draft|student|submi|candidate|bestehend|bisherig|existant|"
    r"précédent|"
    r"anterior|existente|precedente|bestaand|предыдущ|现有|已有|我的|既存|기존",
    re.IGNORECASE,
)


_OF_TOOLS = re.compile(
    r"\b(?:tools?|functions?|thought|action|observation|schema|\w*sql\w*)\b|工具|ツール|도구", re.IGNORECASE
)
_TURN = re.compile(
    r"^[ \t]*[*#<\[]{0,3}(?:user|human|assistant|ai|bot|nutzer|benutzer|assistent|utilisateur|usuario|utente|"
    r"usuário|用户|助手|ユーザー|"
    r"アシスタント|사용자|пользователь|ассистент)[*\]>]{0,3}[ \t]*[:：]",
    re.IGNORECASE | re.MULTILINE,
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
        limit, task = _walk_back(text, marks, start, stop, style, None, tasks=True)
        if task is not None and (before is None or ends_asking(task.query)):
            above = len(text[: task.start].rstrip())
            if not ends_asking(task.query) and _unlabelled_end(text, marks, start, above)[1] is not None:
                return None  # the paragraph above may be the question, and the task only say how to answer it
            before, end, asked = None, limit, task
        elif before is None:
            end, asked = _unlabelled_end(text, marks, start, end)
            if asked is None:
                return None
    asked = before if before is not None and (asked is None or not asked.labelled) else asked
    assert asked is not None
    span = trimmed(text, start, end)
    return Block(span, opener, asked, method) if span[1] - span[0] >= MIN_BLOCK_CHARACTERS else None


def _walk_back(
    text: str,
    marks: Sequence[Mark],
    start: int,
    stop: int,
    style: str,
    before: Asked | None,
    tasks: bool = False,
) -> tuple[int, Asked | None]:
    """Return where the context ends, and the labelled question behind it; `tasks`: or what a "Task:" asks.

    A "Task:" often says only how to answer ("Max 50 words."), so a question is looked for without it first.
    """
    end, asked, styles = stop, None, {style}
    passed: Mark | None = None  # a task, above which a question may be the document's
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
            if passed is not None and mark.style not in (style, passed.style):
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
                task = task_asked(text, marks, mark.start, stop)
                asked = task if tasks else None
                passed = mark if task is not None and not tasks else passed
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


def is_of_tools(text: str) -> bool:
    """Whether instructions speak of tools."""
    return bool(_OF_TOOLS.search(text))


def is_a_chat(text: str) -> bool:
    """Whether a text is turns of a user and an assistant."""
    return len(_TURN.findall(text[:20_000])) >= 4
