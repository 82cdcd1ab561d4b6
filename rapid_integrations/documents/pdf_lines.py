"""The lines of a PDF page: breaks within a line are undone, columns of vertical writing are sorted."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rapid_integrations.documents.pdf_characters import Baseline, Box, PageCharacters

SMALLER = 0.87  # height of a raised character, to that of its neighbours
_IDEOGRAPHIC = re.compile(r"[\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef]")
_OFF = 0.25  # ems from the line beside which turned text is on another one
_SPACE, _FAR = 0.16, 1.5  # ems between characters of turned text: room for a space, another column
_SQUARE = 0.2  # of the difference of two squares, below which a slanted box says nothing about what it holds


def join_lines(page: PageCharacters, pieces: list[str]) -> list[tuple[int, int]]:
    """Undo line breaks before raised characters, between characters of a column, and within turned text.

    Args:
        page: the characters.
        pieces: their text, which is changed: breaks become "" or a space.

    Returns:
        The columns of a page in vertical writing as (first, end), from right to left; () for other pages.
    """
    breaks = [i for i, each in enumerate(pieces) if each == "\n" and 0 < i < len(pieces) - 1]
    columns: list[tuple[int, int]] = []
    start = upright = 0
    for end in (*breaks, len(pieces)):
        last = end - 2 if end < len(pieces) and pieces[end - 1] == "\r" else end - 1
        if last > start and _is_below(page.box(last), page.box(last - 1)):
            upright += last - start
        between, below = _between(page, last, end + 1) if end < len(pieces) and last >= 0 else (None, False)
        upright += below
        if between is None:
            columns.append((start, last + 1))
            start = end + 1
        else:
            between = "" if page.characters[end + 1].isspace() else between
            pieces[last + 1 : end + 1] = [between, *[""] * (end - last - 1)]
    if upright < len(pieces) / 2:
        return []
    return _right_to_left(page, [(a, b) for a, b in columns if b > a])


def _between(page: PageCharacters, last: int, first: int) -> tuple[str | None, bool]:
    """Return what stands in place of a line break (None: the break), and whether the text goes on downwards.

    `last` and `first` are the characters before and after the break.
    """
    if page.is_turned(first):
        return _between_turned(page, last, first), False
    a, b = page.box(last), page.box(first)
    height, lower = a[3] - a[1], b[3] - b[1]
    if height <= 0:
        return None, False
    beside = -0.1 * height <= b[0] - a[2] < 0.3 * height and a[1] < b[1] < a[3] and lower < height
    below = _is_below(b, a) and _IDEOGRAPHIC.match(page.characters[last]) is not None
    if beside or below:
        return "", below
    overlap = min(a[3], b[3]) - max(a[1], b[1])
    if height < SMALLER * lower and overlap > 0.2 * height and -0.1 * lower < b[0] - a[2] < lower:
        # Back from a raised or lowered character: the same line, and a word if there is room for a space.
        return " " if b[0] - a[2] > 0.12 * lower else "", False
    return None, False


def _between_turned(page: PageCharacters, last: int, first: int) -> str | None:
    """Return what stands between two characters of turned text: PDFium breaks it after pieces of one character."""
    if not page.is_turned(last):
        return None
    a, b = page.baseline(last), page.baseline(first)
    along_x, along_y = a.along
    if a.em <= 0 or along_x * b.along[0] + along_y * b.along[1] < 0.99:
        return None
    x, y = b.x - a.x, b.y - a.y
    if abs(x * along_y - y * along_x) > _OFF * a.em:
        return None
    width = _advance(page.box(last), a)
    if width is None:
        return None
    gap = (x * along_x + y * along_y - width) / a.em
    if not -_SPACE < gap < _FAR:
        return None
    return " " if gap > _SPACE else ""


def _advance(box: Box, baseline: Baseline) -> float | None:
    """Return the width of a turned character from the box around it; None near 45 degrees, which hide it."""
    across, up = box[2] - box[0], box[3] - box[1]
    level, upright = (abs(each) for each in baseline.along)
    squares = level * level - upright * upright
    if abs(squares) < _SQUARE:
        return None
    height = (up * level - across * upright) / squares
    return (across * level - up * upright) / squares - abs(baseline.shear) * abs(height)


def _is_below(box: Box, other: Box) -> bool:
    height = other[3] - other[1]
    return abs(box[0] - other[0]) < 0.6 * height and -0.2 * height < other[1] - box[3] < 0.8 * height


def _right_to_left(page: PageCharacters, columns: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sort columns into rows of columns from the top, and each row from the right."""
    placed = [(page.box(a), page.box(b - 1), (a, b)) for a, b in columns]
    placed.sort(key=lambda each: -each[0][3])
    rows: list[list[tuple[float, tuple[int, int]]]] = []
    lowest = 0.0
    for top, bottom, column in placed:
        if not rows or top[3] < lowest:
            rows.append([])
            lowest = bottom[1]
        lowest = min(lowest, bottom[1])
        rows[-1].append((-top[0], column))
    return [column for row in rows for _, column in sorted(row)]
