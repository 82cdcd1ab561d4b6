"""Contexts that marks bound: between tags, between fences, under a label."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from rapid_integrations.prompt.segmentation.blocks import Block, around, below, is_of_tools, tail_end
from rapid_integrations.prompt.segmentation.instructions import (
    instruction_share,
    reads_as_instruction,
)
from rapid_integrations.prompt.segmentation.lexicon import STRONG_CONTEXT, announces_context
from rapid_integrations.prompt.segmentation.marks import Mark
from rapid_integrations.prompt.segmentation.question import (
    labelled_question,
)
from rapid_integrations.prompt.segmentation.spans import (
    MIN_BLOCK_CHARACTERS,
    trimmed,
)

_TRIES = 6  # openers that are tried
_SHORT = 500  # characters: a labelled block that is shorter, before another one, is an example or a description
_MOST_IN_TAGS = 0.6  # share of sentences that instruct, beyond which tags hold instructions
_DIGITS = re.compile(r"\d+")
_OF_A_PASSAGE = frozenset(
    "document doc source passage chunk item article result file snippet excerpt entry page dokument quelle "
    "documento fuente fonte "
    "extrait fragmento bron".split()
)


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
        if not mark.alone and _opens_again(marks, mark, first):
            continue  # '... only when the <source> tag has an id (e.g., <source id="1">).'
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


def _opens_again(marks: Sequence[Mark], mention: Mark, first: Mark) -> bool:
    """Whether the same tag opens a line before it is closed for the first time: the one in a sentence is a mention."""
    return any(
        mark.kind == "open" and mark.alone and mark.name == mention.name and mention.end <= mark.start < first.start
        for mark in marks
    )


def _opens_between(marks: Sequence[Mark], opener: Mark, first: Mark, last: Mark) -> bool:
    return any(
        mark.kind == "open" and mark.name == opener.name and first.end <= mark.start < last.start
        for mark in marks[: marks.index(last)]
    )


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
    return bool(STRONG_CONTEXT.search(line) or announces_context(line)) or any(
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
