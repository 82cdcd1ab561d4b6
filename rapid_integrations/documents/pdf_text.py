"""Turn the characters of a PDF page into text, with superscripts, subscripts, and form values beside labels."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rapid_integrations.documents.pdf_characters import LINE_END_HYPHEN, PageCharacters
from rapid_integrations.documents.pdf_forms import Field
from rapid_integrations.documents.pdf_lines import join_lines
from rapid_integrations.documents.pdf_raised import mark_words

_DOUBLED = re.compile(r"(?<!\S)(?:([^\W\d_])\1){4,}(?!\S)")
_DIFFERENT = 3  # letters in such a word; "xxxxxxxx" is meant
# Typeset words hold one glyph for "ffi"; tokenizers and searches know the letters only.
_PARTED = re.compile(r"(\w+)[\x02\ufffe]\n?(?=(\w+))")
_LIGATURES = str.maketrans(
    {"\ufb00": "ff", "\ufb01": "fi", "\ufb02": "fl", "\ufb03": "ffi", "\ufb04": "ffl", "\ufb05": "st", "\ufb06": "st"}
)


class PageText:
    """The text of a page.

    Attributes:
        page: its characters, and where they stand.
    """

    def __init__(self, textpage: Any) -> None:
        self.page = PageCharacters(textpage)

    def text(self, fields: Sequence[Field] = ()) -> str:
        """Return the page as text, with each field's value at its place."""
        pieces = list(self.page.characters)
        for index in self.page.drawn_again():
            pieces[index] = ""
        columns = join_lines(self.page, pieces)
        mark_words(self.page, pieces)
        behind = [] if not fields else self._place(pieces, fields)
        text = "".join(pieces) if not columns else "\n".join("".join(pieces[a:b]) for a, b in columns)
        # A carriage return by itself is a glyph without a meaning, as other controls are.
        text = text.replace("\r\n", "\n").replace("\r", "\x01") + "".join(f"\n{line}" for line in behind)
        return _readable(text)

    def loses_by(self, other: PageText) -> bool:
        """Whether `other` lacks more than a few of the characters here."""
        here = Counter(each for each in self.page.characters if not each.isspace())
        return (here - Counter(other.page.characters)).total() > 0.02 * here.total()

    def words(self) -> Counter[str]:
        """Return how often each word is there, as PDFium sets them apart."""
        return Counter("".join(self.page.characters).split())

    def _place(self, pieces: list[str], fields: Sequence[Field]) -> list[str]:
        """Write the fields' values into `pieces`, beside their labels. Return the fields without a label."""
        boxes = [
            (index, self.page.box(index))
            for index, piece in enumerate(self.page.characters)
            if not piece.isspace() and piece not in LINE_END_HYPHEN
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
        while index > 0 and not self.page.characters[index - 1].isspace():
            index -= 1
        return index

    def _word_end(self, index: int) -> int:
        while index + 1 < len(self.page.characters) and not self.page.characters[index + 1].isspace():
            index += 1
        return index


def _named(field: Field) -> str:
    return f"{field.name}: {field.text}" if field.name else field.text


def _readable(text: str) -> str:
    """Join surrogate pairs and words that a line break divided, spell out ligatures, and drop NUL."""
    text = text.replace("\0", "").translate(_LIGATURES)
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    # Glyph numbers without a meaning; the low ones are spaces more often than not.
    text = re.sub(r"[\x01\x03-\x08\x0b\x0c\x0e-\x1f\x7f]", " ", text)
    text = re.sub(r"[\x80-\x84\x86-\x9f]", "\ufffd", text)
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
