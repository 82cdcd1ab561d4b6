"""The question out of what surrounds it in a prompt: labels, tags, instructions, answer cues."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rapid_integrations.prompt.segmentation.instructions import (
    begins_as_instruction,
    names_the_task,
    reads_as_instruction,
)
from rapid_integrations.prompt.segmentation.lexicon import INTERROGATIVE, SPEAKERS
from rapid_integrations.prompt.segmentation.marks import CONTROL, Mark, inline_marks
from rapid_integrations.prompt.segmentation.roles import role_of
from rapid_integrations.prompt.segmentation.spans import MAX_QUERY_CHARACTERS

MARKS_OF_A_QUESTION = "?？؟;;"[:3]
_LONGEST_REQUEST = 300  # characters of a labelled question without a question mark
_CUE = re.compile(r"\s([^\s:：]{1,20})[ \t]?[:：]\s*$")
_SYMBOLS = re.compile(r"(?:\n[\W_]+|\s[|>-]+|[\"”]\.)$")
_LONGEST_MANNER = 40  # characters of "Max 50 words." and the like, which bid nothing
_NEAR = 200  # marks behind a question that its answer is looked for in
_PARAGRAPH = re.compile(r"(?:\r?\n[ \t]*){2,}")
_NEXT_CHOICE = re.compile(r"(?<!\w)[Bb][:：).]")
_EDGES = " \t\r\n\"'`*_|“”„«»"
_RULE = re.compile(r"^[ \t]*([-=_*~#+>])\1{1,}[ \t]*$", re.MULTILINE)
_LABEL_END = re.compile("[:：]")
_QUOTED = re.compile(
    r"(?:question|query|frage|pregunta|domanda|pergunta|vraag|вопрос|问题|質問|"
    r"질문)[^\n\"“«„「]{0,20}[\"“«„「]([^\"”»“」\n]{5,600})[\"”»“」]",
    re.IGNORECASE,
)
_ASKS = re.compile(
    r"(?<![^\W_])(?:asks?|asked|wants? to know|writes|wrote|says|said|user|client|customer|employee|student|patient|"
    r"visitor|"
    r"question\w*|fragt|kunde|nutzer\w*|mitarbeiter|frage|demande|client|utilisateur|pregunta\w*|usuario|cliente|"
    r"chiede|utente|"
    r"pergunta|usuário|vraagt|klant|vraag|спрашивает|клиент|пользователь|вопрос\w*)(?![^\W_])|问|質問|질문",
    re.IGNORECASE,
)
_FOLLOWS = re.compile(
    r"(?:following|below|folgende\w*|suivante?|siguiente|seguente|seguinte|volgende|следующ\w+)(?: (?:question|"
    r"frage|query))?\W*$",
    re.IGNORECASE,
)
_SENTENCES = re.compile(r"[^.!?。！？؟]*[.!?。！？؟]*\s*")
# An answer that somebody gave already, and that is to be judged or bettered: the question before it stays open.
_GIVEN_ANSWER = re.compile(
    r"existing|original|previous|prior|current|initial|draft|student|submi|candidate|model|true|expert|reference|"
    r"system|"
    r"bestehend|bisherig|existant|précédent|anterior|existente|precedente|bestaand|предыдущ|现有|已有|原来|既存|"
    r"기존|我的",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Asked:
    """A question, where what belongs to it begins, and whether a label or tag says that it is one."""

    query: str
    start: int
    labelled: bool


def is_open(text: str, marks: Sequence[Mark], index: int, end: int) -> bool:
    """Whether no answer follows the question that `marks[index]` labels, before the next question or context."""
    if marks[index].kind == "label" and _answered_on_its_line(text, marks[index].end, end):
        return False
    for at in range(index + 1, min(len(marks), index + _NEAR)):
        mark = marks[at]
        if mark.start >= end or mark.role in ("question", "context"):
            return True
        if mark.role == "answer" and mark.kind == "label" and len(mark.name.split()) <= 3:
            following = marks[at + 1].start if at + 1 < len(marks) else end
            said = text[mark.end : min(following, end)].strip(_EDGES)
            return not said or bool(_GIVEN_ANSWER.search(mark.name))
    return True


def _answered_on_its_line(text: str, start: int, end: int) -> bool:
    """Whether an answer follows a question on its line, as in an example: "Q: Is it open on Sundays? A: No."."""
    stop = text.find("\n", start, end)
    stop = min(end if stop < 0 else stop, start + MAX_QUERY_CHARACTERS)
    if not any(sign in text[start:stop] for sign in MARKS_OF_A_QUESTION):
        return False
    answer = next((mark for mark in inline_marks(text, start, stop) if mark.role == "answer"), None)
    if answer is None or _GIVEN_ANSWER.search(answer.name):
        return False
    said = text[answer.end : stop]
    chosen = answer.name == "a" and _NEXT_CHOICE.search(said)  # A: apples B: pears
    return not chosen and any(character.isalnum() for character in said)


def labelled_question(
    text: str, marks: Sequence[Mark], start: int, end: int, roles: tuple[str, ...], speakers: bool = True
) -> Asked | None:
    """Return the last open question within `text[start:end]` that a tag or label names; `speakers`: "User:", too."""
    for index in range(len(marks) - 1, -1, -1):
        mark = marks[index]
        if mark.start >= end or mark.end > end:
            continue
        if mark.start < start:
            break
        if not speakers and mark.name in SPEAKERS and mark.name != "q":
            continue
        if mark.role not in roles or mark.kind not in ("label", "open"):
            continue
        query = content_of(text, marks, index, end)
        if query and (mark.kind == "open" or (is_open(text, marks, index, end) and may_be_asked(query))):
            return Asked(query, mark.start, True)
    return None


def may_be_asked(query: str) -> bool:
    """Whether what stands behind a label may be a question: not paragraphs, or one long one, that ask nothing."""
    asks = any(sign in query for sign in MARKS_OF_A_QUESTION)
    return asks or (len(query) <= _LONGEST_REQUEST and "\n\n" not in query.replace("\r", ""))


def ends_asking(query: str) -> bool:
    """Whether a text ends with a question mark, apart from quotation marks behind it."""
    return query.rstrip("\"'”»)* \n")[-1:] in tuple(MARKS_OF_A_QUESTION)


def content_of(text: str, marks: Sequence[Mark], index: int, end: int) -> str:
    """Return the question that `marks[index]` begins, as far as the next part of the prompt, or "" if it has none."""
    mark = marks[index]
    stop = end
    for at in range(index + 1, len(marks)):
        later = marks[at]
        if later.start >= end:
            break
        if mark.kind == "open":
            ends = later.kind == "close" and later.name == mark.name
        else:
            ends = (
                (later.kind == "fence" and text[mark.end : later.start].strip(_EDGES) != "")
                or later.kind == "close"
                or later.role in ("answer", "question", "instruction", "history", "request", "example")
                or (later.role == "context" and (later.style == mark.style or later.kind != "label"))
            )
        if ends:
            stop = later.start
            break
    piece = CONTROL.split(text[mark.end : stop].lstrip(_EDGES))[0]
    if mark.style == '"':  # a member of a JSON object
        piece = re.sub(r"[\"\],}\s]+$", "", piece).replace("\\n", "\n").replace('\\"', '"')
    return piece.strip(_EDGES)[: 2 * MAX_QUERY_CHARACTERS] if mark.kind == "open" else _without_instructions(piece)


def _without_instructions(piece: str) -> str:
    """Return a labelled question without the instructions behind it."""
    kept: list[str] = []
    for paragraph in _PARAGRAPH.split(_RULE.sub("", piece).strip()):
        lines = paragraph.split("\n")
        while len(lines) > (0 if kept else 1) and _only_instructs(lines[-1]):
            lines.pop()
        if not lines:
            break
        kept.append("\n".join(lines))
        if sum(map(len, kept)) > 2 * MAX_QUERY_CHARACTERS:
            kept = kept[:-1] or [kept[0][: 2 * MAX_QUERY_CHARACTERS]]
            break
    return _without_cue("\n\n".join(kept).strip(_EDGES))


def _without_cue(query: str) -> str:
    """Leave out the cue of the answer behind a question on its line: "... Answer:"."""
    query = _SYMBOLS.sub("", _without_orders(query))
    cue = _CUE.search(query)
    return query[: cue.start()].strip(_EDGES) if cue and role_of(cue[1]) == "answer" else query


def _without_orders(query: str) -> str:
    """Leave out sentences behind a question, on its line, that only instruct."""
    sentences = [sentence for sentence in _SENTENCES.findall(query) if sentence]
    while (
        len(sentences) > 1
        and _only_instructs(sentences[-1])
        and begins_as_instruction(sentences[-1].strip(_EDGES + "."))
    ):
        sentences.pop()
    return "".join(sentences).strip().rstrip(_EDGES) if len(sentences) else query


def _only_instructs(line: str) -> bool:
    return not line.strip() or (reads_as_instruction(line) and not any(sign in line for sign in MARKS_OF_A_QUESTION))


def unlabelled_question(text: str, marks: Sequence[Mark], start: int, end: int) -> Asked | None:
    """Return the question within `text[start:end]` that nothing names: a paragraph that does not merely instruct."""
    best: Asked | None = None
    marks = [mark for mark in marks if start <= mark.start < end]
    position = start
    body = text[start:end]
    pieces: list[tuple[int, str]] = []
    for gap in [*_PARAGRAPH.finditer(body), None]:
        stop = end if gap is None else start + gap.start()
        pieces.append((position, text[position:stop]))
        position = end if gap is None else start + gap.end()
    for at, piece in pieces:
        inner = [mark for mark in marks if at <= mark.start < at + len(piece)]
        if (
            inner
            and inner[0].role in ("instruction", "answer", "history", "example", "context")
            and inner[0].kind == "label"
        ):
            continue
        plain = CONTROL.sub("", _RULE.sub("", re.sub(r"</?[\w.-]+>", "", piece))).strip(_EDGES)
        if not plain or len(plain) > 2 * MAX_QUERY_CHARACTERS:
            continue
        lines = [line for line in plain.split("\n") if not _only_instructs(line)]
        asks = any(sign in plain for sign in MARKS_OF_A_QUESTION)
        if not lines or (reads_as_instruction(plain) and not asks):
            continue
        query = _without_cue(without_introduction("\n".join(lines).strip(_EDGES)))
        if best is None or asks or not any(sign in best.query for sign in MARKS_OF_A_QUESTION):
            best = Asked(_question_sentences(query), at, False)
    return best


def without_introduction(query: str) -> str:
    """Leave out what introduces a question on its line: "The user asked: ..."."""
    first, _, below = query.partition("\n")
    named = len(first.strip()) <= 60 and first.rstrip()[-1:] in (":", "：")
    if below.strip() and (named or _FOLLOWS.search(first)):
        return below.strip(_EDGES)  # "What is the answer to the following?"
    head, colon, rest = re.split(r"([:：])\s*", query, maxsplit=1) if re.search("[:：]", query) else (query, "", "")
    if not rest.strip() or len(head) > 80 or any(sign in head for sign in MARKS_OF_A_QUESTION + ".。\n"):
        return query
    introduces = _ASKS.search(head) or begins_as_instruction(head) or names_the_task(head)
    return rest.strip(_EDGES) if introduces else query


_TASKS = (
    "instruction",
    "instructions",
    "task",
    "aufgabe",
    "instrucción",
    "consigne",
    "tarea",
    "compito",
    "任务",
    "指示",
)


def task_asked(text: str, marks: Sequence[Mark], start: int, end: int) -> Asked | None:
    """Return what an "Instruction:" or "Task:" asks, if it is more than how to answer ("Max 50 words.")."""
    for index in range(len(marks) - 1, -1, -1):
        mark = marks[index]
        if start <= mark.start and mark.end <= end and mark.kind == "label" and mark.name in _TASKS:
            content = content_of(text, marks, index, end)
            first = content.split("\n")[0]
            asks = any(sign in content for sign in MARKS_OF_A_QUESTION)
            bids = begins_as_instruction(first) or INTERROGATIVE.match(content)
            brief = len(content) <= _LONGEST_MANNER and not bids
            if content and (asks or not (reads_as_instruction(first) or brief)):
                return Asked(content, mark.start, True)
    return None


def quoted_question(text: str, start: int, end: int) -> Asked | None:
    """Return a question that stands in quotation marks behind the word, and not a label such as "Answer: ..."."""
    found = [each for each in _QUOTED.finditer(text, start, end) if role_of(_LABEL_END.split(each[1])[0]) != "answer"]
    return Asked(found[-1][1].strip(), found[-1].start(), True) if found else None


def _question_sentences(query: str) -> str:
    """Leave out sentences that only instruct, around one that asks."""
    sentences = [sentence for sentence in _SENTENCES.findall(query) if sentence]
    if len(sentences) < 2 or not any(sign in query for sign in MARKS_OF_A_QUESTION):
        return query
    kept = [sentence for sentence in sentences if not (_only_instructs(sentence) and begins_as_instruction(sentence))]
    return "".join(kept).strip() or query


def region_question(text: str, marks: Sequence[Mark], start: int, end: int) -> Asked | None:
    """Return what is asked within `text[start:end]`: by a tag or label, by an announcement, or by itself."""
    return (
        labelled_question(text, marks, start, end, ("question",))
        or labelled_question(text, marks, start, end, ("request",))
        or quoted_question(text, start, end)
        or unlabelled_question(text, marks, start, end)
    )
