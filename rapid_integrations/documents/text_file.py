"""Decode bytes by byte order mark, as UTF-8, by the file's declaration, and otherwise by a detector's guess."""

from __future__ import annotations

import codecs
import re

from rapid_integrations.documents.declared_encoding import codec_of
from rapid_integrations.documents.document import NoTextError
from rapid_integrations.documents.encoding_guess import escaped, guessed, is_encoded_twice, is_mojibake, unmarked_utf16
from rapid_integrations.errors import ConfigurationError, DocumentError, MissingExtraError

# UTF-32 first: its little-endian mark begins with UTF-16's.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_REPLACEMENT = "\ufffd"
_DAMAGED_SHARE = 4  # valid characters per broken one that make a text damaged UTF-8
_CONTROL = frozenset(range(32)) - frozenset(b"\t\n\r\f\v\b\x1b") | {127}
_MAX_CONTROL_SHARE = 0.01  # of a text's first bytes
_FEW_CONTROLS, _ENOUGH_TEXT = 2, 20  # this many in this many bytes are an accident
_HEAD = 65536  # bytes
_IDEOGRAPHS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_ENOUGH_TO_DOUBT = 60  # bytes beyond ASCII
_TWICE = (
    "its UTF-8 seems to be encoded a second time (\u00c3\u00a4 in place of \u00e4): save it anew from where it is whole"
)
_BINARY = "is a binary file, no text: give PDF, Office, HTML, Markdown or plain text"


def decode(
    data: bytes, source: str, declared: str | None = None, encoding: str | None = None
) -> tuple[str, tuple[str, ...]]:
    """Return the text of a file, with line feeds as line breaks, and remarks about guesses.

    Args:
        data: the whole file.
        source: its name, for errors.
        declared: the encoding that the file declares. Byte order marks and valid UTF-8 take precedence.
        encoding: the encoding that the user names. Then nothing is guessed.

    Raises:
        DocumentError: the file is binary, or damaged.
        MissingExtraError: it is not UTF-8, and no detector is installed.
    """
    text, remarks = _decode(data, source, declared) if encoding is None else (_as_told(data, source, encoding), ())
    return text.replace("\r\n", "\n").replace("\r", "\n"), remarks


def _as_told(data: bytes, source: str, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise DocumentError(source, f"is not in the encoding {encoding} (byte {error.start:,})") from error
    except (LookupError, ValueError) as error:  # ValueError: Python's "undefined", a NUL in the name
        raise ConfigurationError(
            f"encoding={encoding!r} is unknown: name one that Python knows, for instance cp1252"
        ) from error


def _decode(data: bytes, source: str, declared: str | None) -> tuple[str, tuple[str, ...]]:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _marked(data, source, encoding)
    without, left_out = _without_nul(data, source)
    if isinstance(without, str):
        return without, left_out
    data = without
    head = data[:_HEAD]
    controls = sum(byte in _CONTROL for byte in head)
    if controls > _MAX_CONTROL_SHARE * len(head) and not (controls <= _FEW_CONTROLS and len(head) >= _ENOUGH_TEXT):
        raise NoTextError(source, _BINARY)
    if data.isascii():
        if codec := escaped(data):
            remarks: tuple[str, ...] = (
                () if declared and _is_declared(declared, codec) else (f"read as {codec}, by its escape sequences",)
            )
            return data.decode(codec), (*left_out, *remarks)
        return data.decode("ascii"), left_out
    try:
        text = data.decode("utf-8")
        return text, (*left_out, _TWICE) if is_encoded_twice(text) else left_out
    except UnicodeDecodeError as error:
        cut_short = error.reason == "unexpected end of data"
    damaged = data.decode("utf-8", "replace")
    broken = damaged.count(_REPLACEMENT)
    whole = sum(character > "\x7f" for character in damaged) - broken
    if (cut_short and broken == 1 <= whole) or whole >= _DAMAGED_SHARE * broken:
        count = f"{broken:,} broken character{'s' * (broken > 1)}"
        return damaged, (*left_out, f"UTF-8 with {count}, read as {_REPLACEMENT}")
    text, guess = _not_utf8(data, source, declared)
    return text, (*left_out, *guess)


def _marked(data: bytes, source: str, encoding: str) -> tuple[str, tuple[str, ...]]:
    try:
        return data.decode(encoding), ()
    except UnicodeDecodeError as error:
        text = data.decode(encoding, "replace")
        broken = text.count(_REPLACEMENT)
        if len(text) - broken <= _DAMAGED_SHARE * broken:
            raise DocumentError(
                source, f"is marked as {encoding}, but byte {error.start:,} is not: the file is damaged"
            ) from error
        return text, (f"{encoding} with {broken:,} broken character{'s' * (broken > 1)}, read as {_REPLACEMENT}",)


def _without_nul(data: bytes, source: str) -> tuple[bytes | str, tuple[str, ...]]:
    """Decode UTF-16 without a mark, and remove the NULs that crashed programs leave in logs.

    Returns text if nothing else is left to do, and otherwise the bytes to continue with.
    """
    if (b"\0" in data or not data[:_HEAD].isascii()) and (codec := unmarked_utf16(data)):
        return data.decode(codec, "replace"), (f"read as {codec}, which is a guess: it has no mark",)
    if b"\0" not in data:
        return data, ()
    count = data.count(b"\0")
    without, runs = re.subn(rb"\0+", b"", data)
    few = runs <= _MAX_CONTROL_SHARE * len(without) or (runs <= _FEW_CONTROLS and len(without) >= _ENOUGH_TEXT)
    if not few:
        raise NoTextError(source, _BINARY)
    return without, (f"{count:,} NUL character{'s' * (count > 1)} left out",)


def _is_declared(declared: str, codec: str) -> bool:
    try:
        found = codec_of(declared)
    except ImportError:
        return False
    return found is not None and found.replace("-", "").replace("_", "")[:8] == codec.replace("_", "")[:8]


def _not_utf8(data: bytes, source: str, declared: str | None) -> tuple[str, tuple[str, ...]]:
    try:
        said = codec_of(declared) if declared else None
        as_said = _strictly(data, said) if said else None
        if as_said is not None and not is_mojibake(as_said):
            return as_said, _doubt(data, as_said, declared)
        codec = guessed(data)
    except ImportError:
        raise MissingExtraError(
            feature=f"Telling the encoding of {source}, which is not UTF-8,", extra="documents"
        ) from None
    if codec is None:
        raise DocumentError(source, "is a binary file, or text in an unknown encoding: name it with --encoding")
    if said == codec and as_said is not None:
        return as_said, ()
    why = f"it declares {declared}, which does not fit" if declared else "it is not UTF-8"
    return data.decode(codec), (f"read as {codec}, which is a guess: {why}. Name it with --encoding",)


def _doubt(data: bytes, as_said: str, declared: str | None) -> tuple[str, ...]:
    """Return a remark if a file declares one encoding of ideographs but looks like another."""
    if not _IDEOGRAPHS.search(as_said[:_HEAD]) or len(data.translate(None, bytes(range(128)))) < _ENOUGH_TO_DOUBT:
        return ()
    codec = guessed(data)
    if codec is None or _strictly(data, codec) in (None, as_said):
        return ()
    return (f"read as {declared}, as it declares; it looks like {codec}. Name it with --encoding",)


def _strictly(data: bytes, codec: str) -> str | None:
    try:
        return data.decode(codec)
    except (LookupError, UnicodeError):
        pass
    if codec != "cp1252":
        return None
    # Browsers read the five undefined bytes of cp1252 as controls. A few of them do not make a text binary.
    text = data.decode("cp1252", "replace")
    return text if text.count(_REPLACEMENT) <= 0.01 * len(text) else None
