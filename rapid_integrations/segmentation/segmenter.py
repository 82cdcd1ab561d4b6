"""The choice: the context and the question of a text, or "plain".

Spans that the caller gives ("explicit") never get here. Otherwise marks that templates write around the parts of a
prompt say where they are ("delimiters"), then a sentence that announces the context, or a long text with a question
before or behind it ("heuristic"). What is unclear is "plain": both readers read all of it, which is never wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

from rapid_integrations.segmentation.blocks import (
    Block,
    announced,
    announced_start,
    before_a_question,
    below,
    fenced,
    is_about_everything,
    labelled,
    tagged,
    tail_end,
)
from rapid_integrations.segmentation.instructions import instruction_share, reads_as_instruction, tells_of_oneself
from rapid_integrations.segmentation.marks import Mark, find_marks, inline_marks
from rapid_integrations.segmentation.question import MARKS_OF_A_QUESTION, is_open
from rapid_integrations.segmentation.spans import (
    MAX_QUERY_CHARACTERS,
    MIN_BLOCK_CHARACTERS,
    MIN_CONTEXT_CHARACTERS,
    Segmentation,
    trimmed,
)

_WINDOW = 4000  # characters at either end of a text that labels within lines are looked for in
_APART = 1500  # a label so far behind what was announced stands in the document


def segment(text: str) -> Segmentation:
    """Find the context and the question in `text`; linear in its length."""
    if len(text) < MIN_CONTEXT_CHARACTERS:
        return plain(text)
    marks = _all_marks(text)
    begin = _after_examples(text, marks)
    block = _marked(text, marks, begin)
    told = announced(text, marks, begin)
    if told is not None and (block is None or block.opener - told.span[0] >= _APART):
        block = told
    if block is None:
        block = before_a_question(text, marks, begin)
    if block is not None:
        if is_about_everything(block.asked):
            return plain(text)
        return Segmentation(block.method, (block.span,), block.asked.query)
    return _bare(text) or plain(text)


def segment_system(text: str) -> Segmentation:
    """Find the context in a system message, whose question another message asks: only what is marked or announced."""
    raise NotImplementedError


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
    blocks = [block for block in found if block is not None]
    if not blocks:
        block = next(labelled(text, marks, begin), None)
        return block
    first = min(blocks, key=lambda block: (block.opener, -block.span[1]))
    for block in blocks:  # "Context:\n<context>": the tags are what bounds it
        if block is not first and first.opener <= block.opener <= first.span[0] + 4 and block.span[1] <= first.span[1]:
            return block
    return first


def _after_examples(text: str, marks: Sequence[Mark]) -> int:
    """Return where the last of several (context, question, answer) begins, the earlier ones being answered: examples.

    A document that holds questions and answers does not repeat the label of the context between them.
    """
    begin = 0
    asked_from = context_from = -1
    answered = False
    for index, mark in enumerate(marks):
        if mark.kind != "label" or mark.style == "inline":
            continue
        if mark.role == "answer":
            following = marks[index + 1].start if index + 1 < len(marks) else len(text)
            said = text[mark.end : following].strip(" \t\r\n*_`\"'")
            if said and asked_from >= 0 and context_from >= 0 and len(said) <= _WINDOW:
                answered = True
        elif mark.role in ("context", "question"):
            if answered:
                begin, answered, asked_from, context_from = mark.start, False, -1, -1
            if mark.role == "context":
                context_from = mark.start
            else:
                asked_from = mark.start
    if begin and (context_from < 0 or len(text) - begin < MIN_BLOCK_CHARACTERS):
        return 0
    return begin


def _bare(text: str) -> Segmentation | None:
    """A question behind or before a long text that is somebody's writing, not the model's instructions."""
    end = tail_end(text)
    cut = text.rfind("\n\n", 0, end)
    last = text[cut:end].strip() if cut > 0 else ""
    if 0 < len(last) <= MAX_QUERY_CHARACTERS and last.rstrip("\"'”)")[-1:] in MARKS_OF_A_QUESTION:
        span = trimmed(text, _after_introduction(text), cut)
        query = last
    else:
        cut = text.find("\n\n")
        query = text[:cut].strip() if 0 < cut <= MAX_QUERY_CHARACTERS else ""
        if query[-1:] not in MARKS_OF_A_QUESTION or not query:
            return None
        span = trimmed(text, cut, end)
    body = text[span[0] : span[1]]
    if len(body) < MIN_BLOCK_CHARACTERS or instruction_share(body) > 0.25 or tells_of_oneself(body):
        return None
    return Segmentation("heuristic", (span,), query)


def _after_introduction(text: str) -> int:
    """Return where the context starts behind a short first paragraph that ends in a colon ("Read this report:")."""
    first = text.find("\n\n")
    head = text[:first].strip() if 0 < first <= 300 else ""
    return first if head.endswith((":", "：")) or reads_as_instruction(head) else 0
