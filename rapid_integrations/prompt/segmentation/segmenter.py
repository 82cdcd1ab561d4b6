"""The choice: the context and the question of a text, or "plain".

Spans that the caller gives ("explicit") never get here. Otherwise marks that templates write around the parts of a
prompt say where they are ("delimiters"), then a sentence that announces the context, or a long text with a question
before or behind it ("heuristic"). What is unclear is "plain": both readers read all of it, which is never wrong.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rapid_integrations.prompt.segmentation.announced import announced, before_a_question, is_about_everything
from rapid_integrations.prompt.segmentation.blocks import Block, is_a_chat, is_of_tools, tail_end
from rapid_integrations.prompt.segmentation.confidence import judged
from rapid_integrations.prompt.segmentation.delimited import fenced, labelled, tagged
from rapid_integrations.prompt.segmentation.edges import inner
from rapid_integrations.prompt.segmentation.instructions import (
    addresses_somebody,
    begins_as_instruction,
    instruction_share,
    reads_as_instruction,
    tells_of_oneself,
)
from rapid_integrations.prompt.segmentation.lexicon import announces_context
from rapid_integrations.prompt.segmentation.marks import Mark, find_marks, inline_marks
from rapid_integrations.prompt.segmentation.question import (
    MARKS_OF_A_QUESTION,
    labelled_question,
    unlabelled_question,
    without_introduction,
)
from rapid_integrations.prompt.segmentation.spans import (
    MAX_QUERY_CHARACTERS,
    MIN_BLOCK_CHARACTERS,
    MIN_CONTEXT_CHARACTERS,
    Segmentation,
    trimmed,
)
from rapid_integrations.prompt.segmentation.turns import last_turn, moved, opens

_WINDOW = 4000  # characters at either end of a text that labels within lines are looked for in
_APART = 400  # a label so far behind the beginning of a text stands in the text, if that does not instruct
_MOST_EXAMPLES = 50
_MOST_PARTS = 400  # labels that examples are looked for in
_ELSEWHERE = "\ue000"
_MOST_INSTRUCTION = 0.3  # share of the sentences of a message without a question, if it is to be a document
_BLANK_LINE = re.compile(r"\n\s*\n")
_LABEL_LINE = re.compile(r"^[^\n]*[:：][ \t]*\r?$", re.MULTILINE)
_LABEL_WORDS = 4


def segment(text: str) -> Segmentation:
    """Find the context and the question in `text`; linear in its length."""
    if len(text) < MIN_CONTEXT_CHARACTERS:
        return plain(text)
    begin, sure = _sure(text)
    if (turn := last_turn(text, begin)) is not None and (sure is None or opens(text, turn, sure.query)):
        _, within = _sure(text[slice(*turn)])
        sure = moved(within, turn) if within is not None else None
    return sure or plain(text)


def _sure(text: str) -> tuple[int, Segmentation | None]:
    """Return where `text` begins behind answered examples, and what can be trusted of what was found behind them."""
    marks = _all_marks(text)
    begin = _after_examples(text, marks)
    found, labelled = _by_words(text, marks, begin)
    return begin, judged(text, begin, tail_end(text), found, labelled)


def _by_words(text: str, marks: Sequence[Mark], begin: int) -> tuple[Segmentation | None, bool]:
    """Return what the words show, and whether a label or tag names the question."""
    block = _marked(text, marks, begin)
    for rule in (announced, before_a_question):
        told = rule(text, marks, begin)
        if told is not None and (block is None or _begins_in(text, told.span[0], block.opener)):
            block = told
    if block is not None:
        if is_about_everything(block.asked):
            return None, False
        return Segmentation(block.method, (block.span,), block.asked.query), block.asked.labelled
    return _bare(text, marks), False


def _begins_in(text: str, start: int, opener: int) -> bool:
    """Whether what stands before a mark is already the document: long, and neither instruction nor another block.

    A short line that ends in a colon is the label of a block, unless it stands deeper in its lines than the first one,
    as in code. A mark that does so itself is the document's, whatever stands before it.
    """
    before = text[start:opener]
    if len(before) < _APART or instruction_share(before) >= 0.12:
        return False
    depth = _indentation(text, start)
    if _indentation(text, opener) > depth:
        return True
    labels = (match[0] for match in _LABEL_LINE.finditer(before))
    return not any(len(label) - len(label.lstrip()) <= depth and len(label.split()) <= _LABEL_WORDS for label in labels)


def _indentation(text: str, at: int) -> int:
    """Return how many blanks the line of a position begins with."""
    line = text.rfind("\n", 0, at) + 1
    return len(text[line : line + _WINDOW]) - len(text[line : line + _WINDOW].lstrip(" \t"))


def segment_context(text: str) -> Segmentation:
    """Find the context in a message whose question stands in another one: only what is marked or announced.

    System messages are looked at like this: they are instructions, unless a template put the context into them.
    """
    if len(text) < MIN_CONTEXT_CHARACTERS:
        return plain(text)
    asked = f"{text}\n\nQuestion: {_ELSEWHERE}\nAnswer:"  # as if the question stood behind it
    marks = _all_marks(asked)
    begin = _after_examples(asked, marks)
    block = _marked(asked, marks, begin)
    told = announced(asked, marks, begin)
    if told is not None and (block is None or _begins_in(asked, told.span[0], block.opener)):
        block = told
    if block is None or block.asked.query != _ELSEWHERE:
        return plain(text)
    if (span := inner(asked, block.span, "", block.method == "delimiters")) is None:
        return plain(text)
    start, end = span
    if end > len(text) or instruction_share(text[start:end]) > _MOST_INSTRUCTION:
        return plain(text)
    return Segmentation(block.method, (span,), "")


def plain(text: str) -> Segmentation:
    """Return that nothing was found: the end of the text stands for the question."""
    return Segmentation("plain", (), text.strip()[-MAX_QUERY_CHARACTERS:])


def _all_marks(text: str) -> list[Mark]:
    marks = find_marks(text)
    taken = {mark.end for mark in marks}
    size = len(text)
    windows = [(0, size)] if size <= 2 * _WINDOW else [(0, _WINDOW), (size - _WINDOW, size)]
    within = [mark for window in windows for mark in inline_marks(text, *window) if mark.end not in taken]
    return sorted([*marks, *within], key=lambda mark: (mark.start, mark.end)) if within else marks


def _marked(text: str, marks: Sequence[Mark], begin: int) -> Block | None:
    """Return the candidate that begins first: a document cannot begin before itself, so what stands in it is later."""
    lined = [mark for mark in marks if mark.style != "inline"]
    found = [next(rule(text, lined, begin), None) for rule in (tagged, fenced, labelled)]
    if len(lined) < len(marks):
        found.append(next(labelled(text, marks, begin), None))
    blocks = [block for block in found if block is not None]
    if not blocks:
        return None
    first = min(blocks, key=lambda block: (block.opener, not block.asked.labelled))  # of equals the best bounded
    for block in (each for each in found[:2] if each is not None):  # "Context:\n<context>": the tags are what bounds it
        between = text[first.span[0] : block.opener].strip()
        inside = first.opener < block.opener and block.span[1] <= first.span[1]
        if block is not first and inside and len(between) < 200 and "\n" not in between:
            return block
    return first


def _after_examples(text: str, marks: Sequence[Mark]) -> int:
    """Return where the last of several (context, question, answer) begins, the earlier ones being answered: examples.

    They follow one another from the first label on, in one order, each answer one paragraph. A document that holds
    questions and answers does not repeat the label of the context between them.
    """
    parts = [mark for mark in marks if mark.kind == "label" and mark.style != "inline"]
    parts = [mark for mark in parts if mark.role in ("context", "question", "answer")]
    parts = [*parts[:_MOST_PARTS], *parts[-1:]] if len(parts) > _MOST_PARTS else parts
    asking = next((mark.name for mark in reversed(parts) if mark.role == "question"), "")
    begin = index = 0
    for _ in range(_MOST_EXAMPLES):
        if index >= len(parts):
            return begin
        example = [parts[index]]
        while index + 1 < len(parts) and len({mark.role for mark in example}) < 3:
            index += 1
            if parts[index].role != example[-1].role or parts[index].role == "context":
                example.append(parts[index])
            else:
                return begin
        roles = [mark.role for mark in example]
        if sorted(role for role in roles if role != "context") != ["answer", "question"] or "context" not in roles:
            return begin
        if next(mark.name for mark in example if mark.role == "question") != asking:
            return begin
        if roles[-1] != "answer" or index + 1 >= len(parts):
            return begin
        answer, following = example[-1], parts[index + 1]
        said = text[answer.end : following.start]
        paragraphs = [part for part in _BLANK_LINE.split(said)[1:] if len(part) > 60 and not reads_as_instruction(part)]
        if not said.strip(" \t\r\n*_`\"'") or len(said) > _WINDOW or any(paragraphs[:1]):
            return begin
        again = next((mark for mark in parts[index + 1 :] if mark.role == example[0].role), following)
        if again.name != example[0].name and not announces_context(following.name):
            return begin
        if following.role == "answer" or following.start - example[0].start > 3 * _WINDOW:
            return begin
        index += 1
        later = next((mark for mark in parts[index:] if mark.role == example[0].role), None)
        if later is None:
            return begin
        again = later
        behind = next(
            (mark.start for mark in parts[index:] if mark.start > again.start and mark.role != "context"), len(text)
        )
        if again.role == "question" or (again is following and behind - again.start >= MIN_BLOCK_CHARACTERS):
            begin = again.start
    return begin


def _bare(text: str, marks: Sequence[Mark]) -> Segmentation | None:
    """A question behind or before a long text that is somebody's writing, not the model's instructions."""
    end = tail_end(text)
    cut = text.rfind("\n\n", 0, end)
    last = text[cut:end].strip() if cut > 0 else ""
    if 0 < len(last) <= MAX_QUERY_CHARACTERS and last.rstrip("\"'”)")[-1:] in MARKS_OF_A_QUESTION:
        span = trimmed(text, _after_introduction(text), cut)
        asked = unlabelled_question(text, marks, cut, end)
        query = asked.query if asked else last
    else:
        cut = text.find("\n\n")
        query = text[:cut].strip() if 0 < cut <= MAX_QUERY_CHARACTERS else ""
        if query[-1:] not in MARKS_OF_A_QUESTION or not query:
            return None
        span = trimmed(text, cut, end)
    body, before = text[span[0] : span[1]], text[: span[0]]
    first = _BLANK_LINE.split(body[:MAX_QUERY_CHARACTERS], maxsplit=1)[0]
    if len(body) < MIN_BLOCK_CHARACTERS or instruction_share(body) > 0.25 or tells_of_oneself(body):
        return None
    if begins_as_instruction(first) or is_of_tools(before) or is_a_chat(body):
        return None
    return Segmentation("heuristic", (span,), without_introduction(query))


def _after_introduction(text: str) -> int:
    """Return where the context starts behind a short first paragraph that ends in a colon ("Read this report:")."""
    first = text.find("\n\n")
    head = text[:first].strip() if 0 < first <= 600 else ""
    told = head.endswith((":", "：")) or reads_as_instruction(head) or addresses_somebody(head)
    return first if told else 0


def question_of(text: str) -> str:
    """Return the question of a text without a context: what a label names, else all of it but bare instructions."""
    if len(text) <= 2 * MAX_QUERY_CHARACTERS:
        marks = _all_marks(text)
        if asked := labelled_question(text, marks, 0, len(text), ("question",)):
            return asked.query
    return text.strip()
