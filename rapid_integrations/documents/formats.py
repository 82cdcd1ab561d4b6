"""Detect a file's format by its first bytes. The name decides only between kinds of text."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import PurePath

from rapid_integrations.documents.document import Format, NoTextError
from rapid_integrations.errors import DocumentError

_HTML_NAMES = (".html", ".htm", ".xhtml")
_MAIL_NAMES = (".eml", ".mht", ".mhtml", ".mbox", ".mbx")
_HTML_START = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html)\b", re.IGNORECASE | re.DOTALL
)
_HEADER = re.compile(rb"([!-9;-~]+):|[ \t]")
_WRITTEN_BY_PROGRAMS = {b"received", b"mime-version", b"message-id", b"return-path"}
_MAIL_BEGINNING = re.compile(rb"From [^\n]*\d{4}[^\n]*\n")  # in mailboxes
_PDF_WITHIN = 1024  # bytes before the mark that PDF readers tolerate
_WAY_OUT = "give PDF, Office, HTML, Markdown or plain text"

# First bytes of other files in document folders, and what to do about them.
_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"%!PS", "is a PostScript file: convert it to PDF"),
    (b"AT&TFORM", "is a DjVu file: convert it to PDF"),
    (b"ITSF", "is a CHM help file: convert it to HTML"),
    (b"\x1f\x8b", "is a gzip archive: unpack it"),
    (b"BZh", "is a bzip2 archive: unpack it"),
    (b"\xfd7zXZ", "is an xz archive: unpack it"),
    (b"\x28\xb5\x2f\xfd", "is a zstd archive: unpack it"),
    (b"Rar!", "is a RAR archive: unpack it"),
    (b"7z\xbc\xaf", "is a 7z archive: unpack it"),
    (b"SQLite format 3\0", "is an SQLite database: export its tables as CSV"),
    (b"GGUF", "is a GGUF model: name it with --target"),
    (b"PAR1", "is a Parquet file: export it as CSV"),
)
# Kinds without text, which are left out of folders.
_NO_TEXT: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG", f"is a PNG picture: {_WAY_OUT}"),
    (b"\xff\xd8\xff", f"is a JPEG picture: {_WAY_OUT}"),
    (b"GIF8", f"is a GIF picture: {_WAY_OUT}"),
    (b"II*\0", f"is a TIFF picture: {_WAY_OUT}"),
    (b"MM\0*", f"is a TIFF picture: {_WAY_OUT}"),
    (b"8BPS", f"is a Photoshop picture: {_WAY_OUT}"),
    (b"\0\0\1\0", f"is an icon: {_WAY_OUT}"),
    (b"RIFF", "is a picture, a recording or a film (RIFF): give its text"),
    (b"ID3", "is a recording (MP3): give what is said in it as text"),
    (b"OggS", "is a recording (Ogg): give what is said in it as text"),
    (b"fLaC", "is a recording (FLAC): give what is said in it as text"),
    (b"\x1aE\xdf\xa3", "is a film (Matroska): give what is said in it as text"),
    (b"wOF", f"is a font: {_WAY_OUT}"),
    (b"\x7fELF", f"is a program: {_WAY_OUT}"),
)
# Old Office files and their like share one container; the names of their streams tell them apart.
_OLE = b"\xd0\xcf\x11\xe0"
_OLE_STREAMS = (
    ("EncryptedPackage", "is encrypted with a password: save a copy without it"),
    ("WordDocument", "is an old Word file (DOC): save it as DOCX"),
    ("Workbook", "is an old Excel file (XLS): save it as XLSX"),
    ("PowerPoint Document", "is an old PowerPoint file (PPT): save it as PPTX"),
    ("__substg1.0_", "is an Outlook mail (MSG): save it as EML"),
)
_ZIPS: tuple[tuple[str, Format], ...] = (
    ("word/", "docx"),
    ("ppt/", "pptx"),
    ("xl/", "xlsx"),
    ("META-INF/container.xml", "epub"),
    ("content.xml", "odf"),
)


def format_of(data: bytes, name: str) -> Format:
    """Return the format of a file.

    Raises:
        DocumentError: the format cannot be read.
        NoTextError: the format holds no text.
    """
    if b"%PDF-" in data[:_PDF_WITHIN]:
        return "pdf"
    if data.startswith(b"PK\x03\x04") or data.startswith(b"PK\x05\x06"):
        return _of_zip(data, name)
    if data.startswith(b"{\\rtf"):
        return "rtf"
    if data.startswith(_OLE):
        found = (reason for stream, reason in _OLE_STREAMS if stream.encode("utf-16-le") in data)
        raise DocumentError(name, next(found, "is an old or encrypted Office file: save it as DOCX without a password"))
    for start, reason in _OTHERS:
        if data.startswith(start):
            raise DocumentError(name, reason)
    for start, reason in _NO_TEXT:
        if data.startswith(start):
            raise NoTextError(name, reason)
    if data[8:10] == b'{"' and 0 < int.from_bytes(data[:8], "little") < len(data):
        raise DocumentError(name, "is a binary file with a model's weights: name its folder with --target")
    if data[4:8] == b"ftyp":
        raise NoTextError(name, "is a film or a picture (MP4, HEIC): give its text")
    if data[257:262] == b"ustar":
        raise DocumentError(name, "is a tar archive: unpack it")
    if data[60:68] == b"BOOKMOBI":
        raise DocumentError(name, "is a Kindle book (MOBI): convert it to EPUB")
    return _of_text(data, name)


def _of_text(data: bytes, name: str) -> Format:
    suffix = PurePath(name).suffix.lower()
    head = data[:65536]
    if suffix in _MAIL_NAMES or _is_mail(head[:16384]):
        return "mail"
    if suffix in _HTML_NAMES or _HTML_START.match(data[:4096]):
        return "html"
    if suffix == ".ipynb" or (head.lstrip().startswith(b"{") and b'"nbformat"' in data and b'"cell_type"' in data):
        return "notebook"
    return "text"


def _is_mail(head: bytes) -> bool:
    """Whether a text begins with mail headers, including one that only programs write."""
    head = _MAIL_BEGINNING.sub(b"", head.replace(b"\r\n", b"\n"), count=1)
    names = set()
    for line in head.split(b"\n\n", 1)[0].split(b"\n"):
        found = _HEADER.match(line)
        if found is None:
            return False
        names.add((found[1] or b"").lower())
    return bool(names & _WRITTEN_BY_PROGRAMS) and bool(names & {b"from", b"date", b"content-type"})


def _of_zip(data: bytes, name: str) -> Format:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            names = packed.namelist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        what = PurePath(name).suffix[1:].upper() if PurePath(name).suffix else "ZIP"
        raise DocumentError(name, f"is a damaged {what} file: {error}") from error
    if "xl/workbook.bin" in names:
        raise DocumentError(name, "is a binary workbook (XLSB): save it as XLSX")
    if any(each.endswith(".iwa") for each in names):
        raise DocumentError(name, "is a Pages, Numbers or Keynote file: export it as DOCX, XLSX or PDF")
    for start, form in _ZIPS:
        if any(each.startswith(start) for each in names):
            return form
    raise DocumentError(name, "is a ZIP archive: unpack it")
