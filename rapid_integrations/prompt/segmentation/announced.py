"""Contexts that nothing bounds: below a sentence that announces one, and before a labelled question at the end."""

from __future__ import annotations

from collections.abc import Sequence

from rapid_integrations.prompt.segmentation.blocks import Block, below, is_a_chat, is_of_tools, tail_end
from rapid_integrations.prompt.segmentation.instructions import (
    begins_as_instruction,
    instruction_share,
    is_a_placeholder,
    needs_the_whole_text,
    reads_as_instruction,
    tells_of_oneself,
)
from rapid_integrations.prompt.segmentation.lexicon import announces_context
from rapid_integrations.prompt.segmentation.marks import Mark
from rapid_integrations.prompt.segmentation.question import (
    MARKS_OF_A_QUESTION,
    Asked,
    is_open,
    labelled_question,
)
from rapid_integrations.prompt.segmentation.role_words import ROLES
from rapid_integrations.prompt.segmentation.spans import (
    MAX_TAIL_CHARACTERS,
    MIN_BLOCK_CHARACTERS,
)

_HEAD_LINES = 60  # lines of instructions before a context that only a sentence announces
_HEAD_CHARACTERS = 8000


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
        ahead = len(line) <= 1500 and announces_context(line)
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
