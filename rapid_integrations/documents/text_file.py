"""Bytes to text: byte order marks, UTF-8, and otherwise a detector's guess."""

from __future__ import annotations

import codecs

from rapid_integrations.errors import DocumentError, MissingExtraError

# UTF-32 first: its little-endian mark begins with UTF-16's.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_REPLACEMENT = "\ufffd"
_DAMAGED_SHARE = 4  # whole characters for each broken one that make a text UTF-8 that was damaged
_CONTROL = frozenset(range(32)) - frozenset(b"\t\n\r\f\v\b\x1b") | {127}
_MAX_CONTROL_SHARE = 0.01  # of a text's first bytes


def decode(data: bytes, source: str, declared: str | None = None) -> tuple[str, tuple[str, ...]]:
    """Return the text of a file, with "\\n" line breaks, and remarks about what was guessed.

    Args:
        data: the whole file.
        source: its name, for errors.
        declared: the encoding that the file itself names, tried behind the marks.

    Raises:
        DocumentError: the file is binary, or damaged.
        MissingExtraError: it is not UTF-8, and nothing is installed that could tell its encoding.
    """
    text, remarks = _decode(data, source, declared)
    return text.replace("\r\n", "\n").replace("\r", "\n"), remarks


def _decode(data: bytes, source: str, declared: str | None) -> tuple[str, tuple[str, ...]]:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            try:
                return data.decode(encoding), ()
            except UnicodeDecodeError as error:
                raise DocumentError(
                    source, f"is marked as {encoding}, but byte {error.start:,} is not: the file is damaged"
                ) from error
    head = data[:65536]
    if b"\0" in data or sum(byte in _CONTROL for byte in head) > _MAX_CONTROL_SHARE * len(head):
        raise DocumentError(source, "is a binary file, no text: give PDF, DOCX, HTML, Markdown or plain text")
    if declared is not None:
        try:
            return data.decode(declared), ()
        except (LookupError, UnicodeDecodeError):
            pass  # pages often lie about it
    try:
        return data.decode("utf-8"), ()
    except UnicodeDecodeError:
        pass
    damaged = data.decode("utf-8", "replace")
    broken = damaged.count(_REPLACEMENT)
    if sum(character > "\x7f" for character in damaged) - broken >= _DAMAGED_SHARE * broken:
        return damaged, (f"UTF-8 with {broken:,} broken characters, read as {_REPLACEMENT}",)
    return _guess(data, source)


def _guess(data: bytes, source: str) -> tuple[str, tuple[str, ...]]:
    try:
        from charset_normalizer import from_bytes
    except ImportError:
        raise MissingExtraError(
            feature=f"Telling the encoding of {source}, which is not UTF-8,", extra="documents"
        ) from None
    best = from_bytes(data).best()
    if best is None:
        raise DocumentError(source, "is a binary file, or text in an unknown encoding: convert it to UTF-8")
    return str(best), (f"read as {best.encoding} (a guess: it is not UTF-8)",)
