"""The characters of a PDF page as PDFium finds them: what each is, and where it stands."""

from __future__ import annotations

import ctypes
import math
import re
from dataclasses import dataclass
from typing import Any

from rapid_integrations.documents.symbol_fonts import sign

LINE_END_HYPHEN = "\x02\ufffe"  # PDFium's signs for a hyphen that a line break needed
BREAKS = "\r\n"
_LEVEL = 0.02  # radians within which text counts as level
_LAST = 0x10FFFF  # of Unicode
_FIRST_UTF8_PAIR, _LAST_UTF8_PAIR = 0xC280, 0xDFBF  # two bytes of UTF-8, as one number
_FIRST_SIGN, _LAST_SIGN = 0xF020, 0xF0FF  # private codes of fonts of signs
_SIGN_FONT = re.compile(r"(?:[A-Z]{6}\+)?(Symbol|Wingdings(?:-?2)?)(?:PS)?(?:MT)?(?:[-,].*)?")
_NAME_BYTES = 128  # of a font, at most
_TWICE = re.compile(r"(\S)(?=\1)")
_SAME_PLACE = 0.15  # ems between a character and the same one that is drawn over it

Box = tuple[float, float, float, float]  # left, bottom, right, top in points


@dataclass(frozen=True)
class Baseline:
    """Where a character begins, and which way it is written.

    Attributes:
        x: of its origin, in points.
        y: the same, upwards.
        along: (x, y) of the direction of writing, of length 1.
        em: its font's size on the page, in points.
        shear: how far a point at its height of 1 is moved along the line, as in fonts that are slanted artificially.
    """

    x: float
    y: float
    along: tuple[float, float]
    em: float
    shear: float


class PageCharacters:
    """The characters of a page.

    Attributes:
        characters: one string per character, in reading order; line breaks are among them.
    """

    def __init__(self, textpage: Any) -> None:
        import pypdfium2.raw as pdfium

        self._textpage = textpage  # alive as long as this
        self._pdfium, self._page = pdfium, textpage.raw
        self._rectangle = pdfium.FS_RECTF()
        self._at = ctypes.byref(self._rectangle)
        self._decoded: set[int] = set()
        unicode_of = pdfium.FPDFText_GetUnicode
        codes = [unicode_of(self._page, index) for index in range(textpage.count_chars())]
        self.characters = [
            chr(code) if code < _FIRST_UTF8_PAIR else self._character(code, index) for index, code in enumerate(codes)
        ]

    def __len__(self) -> int:
        return len(self.characters)

    def box(self, index: int) -> Box:
        """Return the rectangle around a character, with its font's ascent and descent."""
        self._pdfium.FPDFText_GetLooseCharBox(self._page, index, self._at)
        box = self._rectangle
        return box.left, box.bottom, box.right, box.top

    def is_generated(self, index: int) -> bool:
        """Whether PDFium put a character there (a space, a line break) that the page does not draw."""
        return bool(self._pdfium.FPDFText_IsGenerated(self._page, index) == 1)

    def is_guessed(self, index: int) -> bool:
        """Whether the file says no meaning of a character, so that its code stands for it."""
        return index not in self._decoded and bool(self._pdfium.FPDFText_HasUnicodeMapError(self._page, index) == 1)

    def is_drawn(self, index: int) -> bool:
        """Whether the page shows a character, by a font that the file holds; what stands for a space is blank."""
        edges = [ctypes.c_double() for _ in range(4)]
        self._pdfium.FPDFText_GetCharBox(self._page, index, *edges)
        left, right, bottom, top = (each.value for each in edges)
        if right <= left or top <= bottom:
            return False
        font = self._pdfium.FPDFTextObj_GetFont(self._pdfium.FPDFText_GetTextObject(self._page, index))
        return bool(self._pdfium.FPDFFont_GetIsEmbedded(font) == 1)

    def is_turned(self, index: int, slope: float = _LEVEL) -> bool:
        """Whether a character is written in another direction than to the right, by more than that slope."""
        if abs(math.remainder(self._pdfium.FPDFText_GetCharAngle(self._page, index), math.tau)) < _LEVEL:
            return False
        # That angle is also the one of letters that are slanted artificially, on a level line.
        matrix = self._matrix(index)
        return bool(matrix.a <= 0 or abs(matrix.b) > slope * matrix.a)

    def baseline(self, index: int) -> Baseline:
        """Return where a character begins, and which way it is written."""
        x, y, matrix = ctypes.c_double(), ctypes.c_double(), self._matrix(index)
        self._pdfium.FPDFText_GetCharOrigin(self._page, index, x, y)
        scale = math.hypot(matrix.a, matrix.b)
        height = abs(matrix.a * matrix.d - matrix.b * matrix.c)  # times the scale
        if scale <= 0 or height <= 0:
            return Baseline(x.value, y.value, (1.0, 0.0), 0.0, 0.0)
        em = self._pdfium.FPDFText_GetFontSize(self._page, index) * height / scale
        shear = (matrix.a * matrix.c + matrix.b * matrix.d) / height
        return Baseline(x.value, y.value, (matrix.a / scale, matrix.b / scale), em, shear)

    def _matrix(self, index: int) -> Any:
        matrix = self._pdfium.FS_MATRIX()
        self._pdfium.FPDFText_GetMatrix(self._page, index, matrix)
        return matrix

    def drawn_again(self) -> list[int]:
        """Return the characters that are drawn over the same character before them, for boldness or a shadow."""
        again = []
        for twice in _TWICE.finditer("".join(each if len(each) == 1 else "\ufffd" for each in self.characters)):
            first, second = twice.start(), twice.start() + 1
            a, b = self.baseline(first), self.baseline(second)
            if math.hypot(b.x - a.x, b.y - a.y) < _SAME_PLACE * a.em and self._object(first) != self._object(second):
                again.append(second)  # both letters of a ligature are of one object
        return again

    def _sign_font(self, index: int) -> str:
        """Return which font of signs a character is of, as `symbol_fonts` calls it; "" for another font."""
        name = ctypes.create_string_buffer(_NAME_BYTES)
        self._pdfium.FPDFText_GetFontInfo(self._page, index, name, _NAME_BYTES, None)
        font = _SIGN_FONT.fullmatch(name.value.decode("latin-1"))
        return font[1].lower().replace("-", "").replace("s2", "s 2") if font else ""

    def _object(self, index: int) -> int | None:
        return ctypes.cast(self._pdfium.FPDFText_GetTextObject(self._page, index), ctypes.c_void_p).value

    def _character(self, code: int, index: int) -> str:
        if _FIRST_SIGN <= code <= _LAST_SIGN:
            return sign(self._sign_font(index), code) or chr(code)
        if code <= _LAST and not _FIRST_UTF8_PAIR <= code <= _LAST_UTF8_PAIR:
            return chr(code)
        if code > _LAST or self.is_guessed(index):
            # The code of a character map for UTF-8 (UniJIS-UTF8-H and the like) are its bytes.
            try:
                read = code.to_bytes((code.bit_length() + 7) // 8, "big").decode("utf-8")
            except UnicodeDecodeError:
                read = ""
            if len(read) == 1:
                self._decoded.add(index)
                return read
        return chr(code) if code <= _LAST else "\ufffd"
