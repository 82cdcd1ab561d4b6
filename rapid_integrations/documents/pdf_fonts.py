"""A replacement for fonts that a PDF names but does not embed.

PDFium leaves characters without an outline out of the text. So the text of files without embedded fonts (most Japanese
and Chinese ones of the nineties, many forms) depends on the machine's fonts, and a server without fonts finds nothing.
Here every character of every missing font is one square. The text is then complete, and the same everywhere.
"""

from __future__ import annotations

import ctypes
import struct
from typing import Any

_CHARACTERS = 0x10FFFF
# PDFium holds these itself, and files may leave their widths out (ISO 32000, 9.6.2.2).
_BUILT_IN = (b"Helvetica", b"Times-", b"Courier", b"Symbol", b"ZapfDingbats")
_HANDLE = 1  # of the stand-in
_EM, _ASCENT, _DESCENT = 1000, 800, -200


def _square_font() -> dict[bytes, bytes]:
    """Return the tables of a TrueType font (OpenType 1.9) that draws one square for every character."""
    square = struct.pack(">5h2H", 1, 0, _DESCENT, _EM, _ASCENT, 3, 0) + bytes([1] * 4)  # one contour, on-curve points
    square += struct.pack(">8h", 0, _EM, 0, -_EM, _DESCENT, 0, _EM, 0)
    square += bytes(-len(square) % 4)
    # Format 13: one glyph for a range of characters. Both Unicode encodings (BMP, full) are served by it.
    many_to_one = struct.pack(">2H3I3I", 13, 0, 28, 0, 1, 1, _CHARACTERS, 1)
    vertical = (_ASCENT, _DESCENT, 0)
    return {
        b"OS/2": struct.pack(">HhHHH11h", 4, _EM, 400, 5, 0, *[500] * 10, 0)
        + bytes(10)
        + struct.pack(">4I4sHHH", *[0xFFFFFFFF] * 4, b"none", 64, 0, 0xFFFF)
        + struct.pack(">3h2H2I2h3H", *vertical, _ASCENT, -_DESCENT, 0xFFFFFFFF, 0xFFFFFFFF, 500, 700, 0, 32, 1),
        b"cmap": struct.pack(">2H", 0, 2) + struct.pack(">2HI2HI", 3, 1, 20, 3, 10, 20) + many_to_one,
        b"glyf": square,
        b"head": struct.pack(
            ">4I2H2q4h2H3h", 0x10000, 0x10000, 0, 0x5F0F3CF5, 3, _EM, 0, 0, 0, _DESCENT, _EM, _ASCENT, 0, 8, 2, 0, 0
        ),
        b"hhea": struct.pack(">I3hH11hH", 0x10000, *vertical, _EM, 0, 0, _EM, 1, *[0] * 7, 2),
        b"hmtx": struct.pack(">HhHh", _EM, 0, _EM, 0),
        b"loca": struct.pack(">3H", 0, 0, len(square) // 2),
        b"maxp": struct.pack(">I14H", 0x10000, 2, 4, 1, 0, 0, 2, *[0] * 8),
        b"name": struct.pack(">3H", 0, 0, 6),
        b"post": struct.pack(">2I2h5I", 0x30000, 0, -100, 50, *[0] * 5),
    }


def _file(tables: dict[bytes, bytes]) -> bytes:
    rows, body = b"", b""
    start = 12 + 16 * len(tables)
    for tag, data in tables.items():
        rows += tag + struct.pack(">3I", 0, start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    return struct.pack(">I4H", 0x10000, len(tables), 128, 3, len(tables) * 16 - 128) + rows + body


def install() -> None:
    """Make this process's PDFium use the replacement for every font that a file does not embed. Call it once.

    A program that has installed its own fonts keeps them.
    """
    import pypdfium2

    if pypdfium2.PdfSysfontBase.SINGLETON is None:
        _stand_in(pypdfium2.PdfSysfontBase)().setup()


def _stand_in(base: type[Any]) -> type[Any]:
    tables = _square_font()
    whole = _file(tables)

    class StandIn(base):  # type: ignore[misc]
        """The callbacks of FPDF_SYSFONTINFO."""

        def MapFont(
            self, _: Any, weight: int, italic: int, charset: int, pitch: int, face: Any, _exact: Any
        ) -> int | None:
            name = ctypes.cast(face, ctypes.c_char_p).value or b""
            return None if name.startswith(_BUILT_IN) else _HANDLE

        def GetFont(self, _: Any, face: Any) -> int:
            return _HANDLE

        def GetFontData(self, _: Any, handle: Any, table: int, buffer: Any, size: int) -> int:
            data = tables.get(struct.pack(">I", table), b"") if table else whole
            if buffer and size >= len(data):
                ctypes.memmove(buffer, data, len(data))
            return len(data)

        def GetFaceName(self, _: Any, handle: Any, buffer: Any, size: int) -> int:
            name = b"Squares\0"
            if buffer and size >= len(name):
                ctypes.memmove(buffer, name, len(name))
            return len(name)

        def GetFontCharset(self, _: Any, handle: Any) -> int:
            return 1  # any

        def DeleteFont(self, _: Any, handle: Any) -> None:
            pass

    return StandIn
