"""What a file is, by its first bytes; its name decides only between HTML and plain text."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import PurePath

from rapid_integrations.documents.document import Format
from rapid_integrations.errors import DocumentError

_HTML_NAMES = (".html", ".htm", ".xhtml")
_HTML_START = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html)\b", re.IGNORECASE | re.DOTALL
)
_PDF_WITHIN = 1024  # bytes before the mark, which readers put up with
_WAY_OUT = "give PDF, DOCX, HTML, Markdown or plain text"

# First bytes of what people put into document folders, and what to do about it.
_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"\xd0\xcf\x11\xe0", "is an old or encrypted Office file: save it as DOCX without a password"),
    (b"{\\rtf", "is an RTF file: save it as DOCX or plain text"),
    (b"%!PS", "is a PostScript file: convert it to PDF"),
    (b"\x89PNG", f"is a PNG picture: {_WAY_OUT}"),
    (b"\xff\xd8\xff", f"is a JPEG picture: {_WAY_OUT}"),
    (b"GIF8", f"is a GIF picture: {_WAY_OUT}"),
    (b"II*\0", f"is a TIFF picture: {_WAY_OUT}"),
    (b"MM\0*", f"is a TIFF picture: {_WAY_OUT}"),
    (b"\x1f\x8b", "is a gzip archive: unpack it"),
    (b"7z\xbc\xaf", "is a 7z archive: unpack it"),
    (b"GGUF", "is a GGUF model: name it with --target"),
)
_ZIPS = (
    ("xl/", "is a spreadsheet (XLSX): save it as text (CSV)"),
    ("ppt/", "is a presentation (PPTX): save it as PDF"),
    ("META-INF/container.xml", "is an e-book (EPUB): convert it to HTML or text"),
    ("content.xml", "is an OpenDocument file: save it as DOCX or PDF"),
)


def format_of(data: bytes, name: str) -> Format:
    """Return the format of a file.

    Raises:
        DocumentError: a format that cannot be read.
    """
    if b"%PDF-" in data[:_PDF_WITHIN]:
        return "pdf"
    if data.startswith(b"PK\x03\x04") or data.startswith(b"PK\x05\x06"):
        return _of_zip(data, name)
    for start, reason in _OTHERS:
        if data.startswith(start):
            raise DocumentError(name, reason)
    if PurePath(name).suffix.lower() in _HTML_NAMES or _HTML_START.match(data[:4096]):
        return "html"
    return "text"


def _of_zip(data: bytes, name: str) -> Format:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            names = packed.namelist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        what = "DOCX" if name.lower().endswith(".docx") else "ZIP"
        raise DocumentError(name, f"is a damaged {what} file: {error}") from error
    if any(each.startswith("word/") for each in names):
        return "docx"
    for start, reason in _ZIPS:
        if any(each.startswith(start) for each in names):
            raise DocumentError(name, reason)
    raise DocumentError(name, "is a ZIP archive: unpack it")
