"""Turn the characters of a PDF page into text, with superscripts, subscripts, and form values beside labels."""

from __future__ import annotations

import ctypes
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rapid_integrations.documents.pdf_forms import Field
from rapid_integrations.documents.raised import lowered, raised

_LINE_END_HYPHEN = "\x02\ufffe"  # PDFium's signs for a hyphen that a line break needed
_BREAKS = "\r\n"
_SMALLER = 0.87  # height of a superscript, relative to its neighbours
_RAISED, _LOWERED = 0.2, -0.05  # distance of its lower edge from theirs, in their heights
_TOO_FAR = 0.95  # beyond this distance it belongs to another line
_GAP = 0.5  # distance between characters of different words, in heights
_WIDE = 1.5  # the same distance, in widths of the character before
_MOSTLY = 0.3  # share of characters without a meaning that makes a page undecodable
_WITH_MARKS = re.compile(r"\S*[\d*†‡]\S*|\S*[a-z][A-Z]\S*|\b\w{1,6}\b")
_BEFORE_MARK = re.compile(r"(?<=[\w)]) (?=[\d+−–*†‡-])")
_DOUBLED = re.compile(r"(?<!\S)(?:([^\W\d_])\1){4,}(?!\S)")
_DIFFERENT = 3  # letters in such a word; "xxxxxxxx" is meant
_RAISED_TEXT = re.compile(r"[+−–-]?\d+(?:[.,/]\d+)*[+−–-]?|[*†‡§]+|[+−–-]")
_IDEOGRAPHIC = re.compile(r"[\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef]")
_JOINED = "\u2060"  # replaces a line break that does not end a line
_LOWERED_TEXT = re.compile(r"\d{1,3}")
_VOWELS = frozenset("aeiouyAEIOUY")
# Typeset words may hold one glyph for "ffi", but tokenizers and searches know only the letters.
_PARTED = re.compile(r"(\w+)[\x02\ufffe]\n?(?=(\w+))")
_LIGATURES = str.maketrans(
    {"\ufb00": "ff", "\ufb01": "fi", "\ufb02": "fl", "\ufb03": "ffi", "\ufb04": "ffl", "\ufb05": "st", "\ufb06": "st"}
)

Box = tuple[float, float, float, float]  # left, bottom, right, top in points


class PageText:
    """The characters of a page and their positions.

    Attributes:
        characters: one string per character, in reading order, including line breaks.
    """

    def __init__(self, textpage: Any) -> None:
        import pypdfium2.raw as pdfium

        self._textpage = textpage  # alive as long as this
        self._pdfium, self._page = pdfium, textpage.raw
        self._rectangle = pdfium.FS_RECTF()
        self._at = ctypes.byref(self._rectangle)
        unicode_of = pdfium.FPDFText_GetUnicode
        self.characters = [_character(unicode_of(self._page, index)) for index in range(textpage.count_chars())]

    def text(self, fields: Sequence[Field] = ()) -> str:
        """Return the page as text, with each field's value at its place."""
        pieces = list(self.characters)
        columns = self._join_lines(pieces)
        self._mark_words(pieces)
        behind = [] if not fields else self._place(pieces, fields)
        text = "".join(pieces) if not columns else "\n".join("".join(pieces[a:b]) for a, b in columns)
        text = text.replace("\r\n", "\n").replace("\r", "\n") + "".join(f"\n{line}" for line in behind)
        return _readable(text)

    def loses_by(self, other: PageText) -> bool:
        """Whether `other` lacks more than a few of the characters here."""
        here = Counter(each for each in self.characters if not each.isspace())
        return (here - Counter(other.characters)).total() > 0.02 * here.total()

    def is_undecodable(self) -> bool:
        """Whether most characters have no meaning in Unicode: private ones, controls, or glyph numbers."""
        shown = [
            (index, each)
            for index, each in enumerate(self.characters)
            if not each.isspace() and each not in _LINE_END_HYPHEN
        ]
        if not shown:
            return False
        odd = sum(each == "\ufffd" or unicodedata.category(each[0]) in ("Co", "Cc", "Cn", "Cs") for _, each in shown)
        if odd > _MOSTLY * len(shown):
            return True
        guessed = sum(self._pdfium.FPDFText_HasUnicodeMapError(self._page, index) == 1 for index, _ in shown)
        return guessed > len(shown) / 2 and not _is_like_language("".join(each for _, each in shown))

    def _box(self, index: int) -> Box:
        self._pdfium.FPDFText_GetLooseCharBox(self._page, index, self._at)
        box = self._rectangle
        return box.left, box.bottom, box.right, box.top

    def _join_lines(self, pieces: list[str]) -> list[tuple[int, int]]:
        """Undo line breaks before raised characters and between characters of a column.

        Returns the columns of a page in vertical writing as (first, end), from right to left, or () for other pages.
        """
        breaks = [i for i, each in enumerate(pieces) if each == "\n" and 0 < i < len(pieces) - 1]
        columns: list[tuple[int, int]] = []
        start = upright = 0
        for end in (*breaks, len(pieces)):
            last = end - 2 if end < len(pieces) and pieces[end - 1] == "\r" else end - 1
            if last > start and self._is_below(self._box(last), self._box(last - 1)):
                upright += last - start
            joined, after = False, ""
            if end < len(pieces) and last >= 0:
                a, b = self._box(last), self._box(end + 1)
                height = a[3] - a[1]
                beside = -0.1 * height <= b[0] - a[2] < 0.3 * height and a[1] < b[1] < a[3] and b[3] - b[1] < height
                below = self._is_below(b, a) and _IDEOGRAPHIC.match(self.characters[last]) is not None
                joined = height > 0 and (beside or below)
                upright += below
                lower = b[3] - b[1]
                overlap = min(a[3], b[3]) - max(a[1], b[1])
                if not joined and 0 < height < _SMALLER * lower and overlap > 0.2 * height and b[0] - a[2] < lower:
                    # Back from a raised or lowered character: the same line, and a word if there is room for a space.
                    joined = b[0] - a[2] > -0.1 * lower
                    after = " " if b[0] - a[2] > 0.12 * lower else ""
            if joined:
                after = "" if self.characters[end + 1].isspace() else after
                pieces[last + 1 : end + 1] = [after, *[""] * (end - last - 1)]
            else:
                columns.append((start, last + 1))
                start = end + 1
        if upright < len(pieces) / 2:
            return []
        return self._right_to_left([(a, b) for a, b in columns if b > a])

    @staticmethod
    def _is_below(box: Box, other: Box) -> bool:
        height = other[3] - other[1]
        return abs(box[0] - other[0]) < 0.6 * height and -0.2 * height < other[1] - box[3] < 0.8 * height

    def _right_to_left(self, columns: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Sort columns into rows of columns from the top, and each row from the right."""
        placed = [(self._box(a), self._box(b - 1), (a, b)) for a, b in columns]
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

    def _mark_words(self, pieces: list[str]) -> None:
        """Mark superscripts and subscripts within words."""
        for space in _BEFORE_MARK.finditer("".join(each if len(each) == 1 else "\ufffd" for each in self.characters)):
            a, b = self._box(space.start() - 1), self._box(space.end())
            height = a[3] - a[1]
            generated = self._pdfium.FPDFText_IsGenerated(self._page, space.start()) == 1
            if generated and b[3] - b[1] < _SMALLER * height and _RAISED * height < b[1] - a[1] < _TOO_FAR * height:
                if b[0] - a[2] < 0.25 * height:
                    pieces[space.start()] = ""
        line = "".join((each if len(each) == 1 else "\ufffd") if each else _JOINED for each in pieces)
        for word in _WITH_MARKS.finditer(line):
            first, last = word.start(), word.end() - 1
            if first < last and pieces[first]:
                self._mark(pieces, first, last)

    def _mark(self, pieces: list[str], first: int, last: int) -> None:
        base = before = self._box(first)
        run: list[int] = []
        level = 0
        for index in range(first + 1, last + 2):
            if index <= last and not pieces[index]:
                continue
            here = 0
            if index <= last:
                box = self._box(index)
                height = base[3] - base[1]
                off = (box[1] - base[1]) / height if height > 0 else 0.0
                if height > 0 and box[3] - box[1] < _SMALLER * height and abs(off) < _TOO_FAR and box[2] > base[0]:
                    here = 1 if off > _RAISED else -1 if off < _LOWERED else 0
                elif _RAISED < off < _TOO_FAR and pieces[index].isdigit() and box[0] > base[0]:
                    here = 1  # of the same size
                if not here and box[3] > box[1]:
                    base = box
                gap = box[0] - before[2]
                if abs(box[1] - before[1]) > 2 * height > 0:
                    pieces[index] = f"\n{pieces[index]}"  # of another line
                elif gap > _GAP * height > 0 or gap > _WIDE * (before[2] - before[0]) > 0:
                    pieces[index] = f" {pieces[index]}"  # of another column
                before = box
            if here != level:
                self._write(pieces, run, level)
                run, level = [], here
            if here:
                run.append(index)

    def _write(self, pieces: list[str], run: list[int], level: int) -> None:
        """Mark a run of superscripts or subscripts, unless a slanted or uneven line is likelier."""
        if not run:
            return
        text = "".join(self.characters[index] for index in run)
        around = "".join(each for each in self.characters[max(0, run[0] - 4) : run[0]] if each not in _BREAKS)
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

    def _place(self, pieces: list[str], fields: Sequence[Field]) -> list[str]:
        """Write the fields' values into `pieces`, beside their labels. Return the fields without a label."""
        boxes = [
            (index, self._box(index))
            for index, piece in enumerate(self.characters)
            if not piece.isspace() and piece not in _LINE_END_HYPHEN
        ]
        lines: dict[float, list[tuple[float, str]]] = {}
        for field in fields:
            left, bottom, right, top = field.box
            middle = (bottom + top) / 2
            beside = [(i, b) for i, b in boxes if b[1] <= middle <= b[3] or bottom <= (b[1] + b[3]) / 2 <= top]
            before = max((each for each in beside if each[1][2] <= left + 3), key=lambda e: e[1][2], default=None)
            after = min((each for each in beside if each[1][0] >= right - 3), key=lambda e: e[1][0], default=None)
            if field.before_label and after is not None:
                start = self._word_start(after[0])
                pieces[start] = f" {field.text} {pieces[start]}"
            elif before is not None:
                pieces[self._word_end(before[0])] += f" {field.text} "
            elif above := [(i, b) for i, b in boxes if b[1] >= middle and b[0] < right and b[2] > left]:
                nearest = min(b[1] for _, b in above)
                if nearest - top > 2 * max(8.0, top - bottom):
                    lines.setdefault(-middle, []).append((left, _named(field)))
                    continue
                index = max(i for i, b in above if b[1] < nearest + 3)
                pieces[self._word_end(index)] += f" {field.text} "
            elif after is not None:
                start = self._word_start(after[0])
                pieces[start] = f" {field.text} {pieces[start]}"
            else:
                lines.setdefault(-middle, []).append((left, _named(field)))
        return [" ".join(text for _, text in sorted(lines[height])) for height in sorted(lines)]

    def _word_start(self, index: int) -> int:
        while index > 0 and not self.characters[index - 1].isspace():
            index -= 1
        return index

    def _word_end(self, index: int) -> int:
        while index + 1 < len(self.characters) and not self.characters[index + 1].isspace():
            index += 1
        return index


def _is_like_language(text: str) -> bool:
    """Whether letters without a stated meaning look like words of a Latin alphabet, including vowels."""
    letters = [each for each in text if each.isalpha()]
    latin = [each for each in letters if each.isascii()]
    if len(letters) < 0.6 * len(text):
        return all(each.isdigit() or each in ".,-+%" for each in text)
    vowels = sum(each in _VOWELS for each in latin)
    return len(latin) > 0.6 * len(letters) and vowels > 0.22 * len(latin)


def _named(field: Field) -> str:
    return f"{field.name}: {field.text}" if field.name else field.text


def _character(code: int) -> str:
    return chr(code) if code <= 0x10FFFF else "\ufffd"


def _readable(text: str) -> str:
    """Join surrogate pairs and words that a line break divided, spell out ligatures, and drop NUL."""
    text = text.replace("\0", "").translate(_LIGATURES)
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    text = re.sub(r"[\x01\x03-\x08\x0b\x0c\x0e-\x1f\x7f]", " ", text)  # what glyph numbers without a meaning give
    text = _PARTED.sub(_rejoined, text)
    text = re.sub(r"[\x02\ufffe]", "-", text)
    text = re.sub(r"(?<=\w)\u00ad\s*\n?\s*(?=\w)", "", text).replace("\u00ad", "-")
    lines = (re.sub(r"(?<=\S)[ \t]+", " ", line).rstrip() for line in text.split("\n"))
    return "\n".join(_once(line) if _DOUBLED.search(line) else line for line in lines).strip()


def _rejoined(parted: re.Match[str]) -> str:
    """Return the two parts of a divided word, without the hyphen unless the word itself has one."""
    before, after = parted[1], parted[2]
    own = (
        len(before) == 1 or after[0].isdigit() or (after[0].isupper() and not before.isupper())
    )  # X-ray, UTF-8, non-EU
    return before + "-" * own


def _once(line: str) -> str:
    """Return a line without the second copy of characters that are drawn twice for boldness."""
    words = line.split(" ")
    twice = [word for word in words if _DOUBLED.fullmatch(word) and len(set(word)) >= _DIFFERENT]
    if not twice:
        return line
    return " ".join(word[::2] if word[::2] == word[1::2] else word for word in words)
