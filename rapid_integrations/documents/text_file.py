"""Bytes to text: byte order marks, UTF-8, and otherwise a detector's guess."""

from __future__ import annotations

import codecs

from rapid_integrations.errors import ConfigurationError, DocumentError, MissingExtraError

# UTF-32 first: its little-endian mark begins with UTF-16's.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# What texts outside of UTF-8 are really in (the WHATWG's list, one of each family). Given all that Python knows, a
# detector takes short German for Icelandic of the old Macintosh.
_LIKELY = (
    *("cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp874", "cp866", "koi8_r"),
    *("shift_jis", "euc_jp", "iso2022_jp", "gb18030", "big5", "euc_kr"),
)
_REPLACEMENT = "\ufffd"
_DAMAGED_SHARE = 4  # whole characters for each broken one that make a text UTF-8 that was damaged
_CONTROL = frozenset(range(32)) - frozenset(b"\t\n\r\f\v\b\x1b") | {127}
_MAX_CONTROL_SHARE = 0.01  # of a text's first bytes


def decode(
    data: bytes, source: str, declared: str | None = None, encoding: str | None = None
) -> tuple[str, tuple[str, ...]]:
    """Return the text of a file, with line feeds for line breaks, and remarks about what was guessed.

    Args:
        data: the whole file.
        source: its name, for errors.
        declared: the encoding that the file itself names, tried behind the marks.
        encoding: the encoding that the user names; nothing is guessed then.

    Raises:
        DocumentError: the file is binary, or damaged.
        MissingExtraError: it is not UTF-8, and nothing is installed that could tell its encoding.
    """
    text, remarks = _decode(data, source, declared) if encoding is None else (_as_told(data, source, encoding), ())
    return text.replace("\r\n", "\n").replace("\r", "\n"), remarks


def _as_told(data: bytes, source: str, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except LookupError as error:
        raise ConfigurationError(
            f"encoding={encoding!r} is unknown: name one that Python knows, for instance cp1252"
        ) from error
    except UnicodeDecodeError as error:
        raise DocumentError(source, f"is not in the encoding {encoding} (byte {error.start:,})") from error


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
    best = from_bytes(data, cp_isolation=list(_LIKELY)).best()
    if best is None:
        raise DocumentError(source, "is a binary file, or text in an unknown encoding: name it with --encoding")
    return str(best), (f"read as {best.encoding}, which is a guess: it is not UTF-8. Name it with --encoding",)
