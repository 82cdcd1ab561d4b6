"""Raised and lowered characters of a PDF page, written as such; words that stand in different columns, set apart."""

from __future__ import annotations

import re

from rapid_integrations.documents.pdf_characters import BREAKS, PageCharacters
from rapid_integrations.documents.pdf_lines import SMALLER
from rapid_integrations.documents.raised import lowered, raised

_RAISED, _LOWERED = 0.2, -0.05  # how far its lower edge is from theirs, in their heights
_TOO_FAR = 0.95  # beyond that it belongs to another line
_GAP = 0.5  # heights between characters that stand for different words
_WIDE = 1.5  # the same in widths of the character before
_NARROW = 0.3  # heights: the width that a narrower character is taken to have
_SLOPE = 0.15  # of a line on which raised still means above
_WITH_MARKS = re.compile(r"\S*[\d*†‡]\S*|\S*[a-z][A-Z]\S*|\b\w{1,6}\b")
_BEFORE_MARK = re.compile(r"(?<=[\w)]) (?=[\d+−–*†‡-])")
_RAISED_TEXT = re.compile(r"[+−–-]?\d+(?:[.,/]\d+)*[+−–-]?|[*†‡§]+|[+−–-]")
_LOWERED_TEXT = re.compile(r"\d{1,3}")
_JOINED = "\u2060"  # in place of a line break that is none


def mark_words(page: PageCharacters, pieces: list[str]) -> None:
    """Write raised and lowered characters within words as such.

    Args:
        page: the characters.
        pieces: their text, which is changed.
    """
    for space in _BEFORE_MARK.finditer("".join(each if len(each) == 1 else "\ufffd" for each in page.characters)):
        a, b = page.box(space.start() - 1), page.box(space.end())
        height = a[3] - a[1]
        lifted = b[3] - b[1] < SMALLER * height and _RAISED * height < b[1] - a[1] < _TOO_FAR * height
        if lifted and b[0] - a[2] < 0.25 * height and page.is_generated(space.start()):
            pieces[space.start()] = ""
    line = "".join((each if len(each) == 1 else "\ufffd") if each else _JOINED for each in pieces)
    for word in _WITH_MARKS.finditer(line):
        first, last = word.start(), word.end() - 1
        # Beside and above mean nothing in turned text.
        if first < last and pieces[first] and not page.is_turned(first, _SLOPE):
            _mark(page, pieces, first, last)


def _mark(page: PageCharacters, pieces: list[str], first: int, last: int) -> None:
    base = before = page.box(first)
    run: list[int] = []
    level = 0
    for index in range(first + 1, last + 2):
        if index <= last and not pieces[index]:
            continue
        here = 0
        if index <= last:
            box = page.box(index)
            height = base[3] - base[1]
            off = (box[1] - base[1]) / height if height > 0 else 0.0
            if height > 0 and box[3] - box[1] < SMALLER * height and abs(off) < _TOO_FAR and box[2] > base[0]:
                here = 1 if off > _RAISED else -1 if off < _LOWERED else 0
            elif _RAISED < off < _TOO_FAR and pieces[index].isdigit() and box[0] > base[0]:
                here = 1  # of the same size
            if not here and box[3] > box[1]:
                base = box
            gap, width = box[0] - before[2], before[2] - before[0]
            if abs(box[1] - before[1]) > 2 * height > 0:
                pieces[index] = f"\n{pieces[index]}"  # of another line
            elif gap > _GAP * height > 0 or (width > 0 and gap > _WIDE * max(width, _NARROW * height)):
                pieces[index] = f" {pieces[index]}"  # of another column
            before = box
        if here != level:
            _write(page, pieces, run, level)
            run, level = [], here
        if here:
            run.append(index)


def _write(page: PageCharacters, pieces: list[str], run: list[int], level: int) -> None:
    """Write a run of raised or lowered characters as such, unless an uneven line is likelier."""
    if not run:
        return
    text = "".join(page.characters[index] for index in run)
    around = "".join(each for each in page.characters[max(0, run[0] - 4) : run[0]] if each not in BREAKS)
    beside, alone = around[-1:], not around[-2:-1].isalpha()
    if level > 0 and (_RAISED_TEXT.fullmatch(text) or (len(text) == 1 and text.isalpha() and alone)):
        marked = raised(text)
    elif level < 0 and _LOWERED_TEXT.fullmatch(text) and (beside.isalpha() or beside in ")]"):
        marked = lowered(text)
    else:
        return
    pieces[run[0]] = marked
    for index in run[1:]:
        pieces[index] = ""
