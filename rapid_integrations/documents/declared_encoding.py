"""Read the encoding that HTML, XML, TeX or source code declares, by the web's rules."""

from __future__ import annotations

import codecs
import re

_HTML_WITHIN = 1024  # bytes in which a page may name it (WHATWG HTML, 13.2.3.2)
_LINES_WITHIN = 4096
_DECLARED = (
    re.compile(rb"""^\s*<\?xml\b[^>]*?\bencoding\s*=\s*["']\s*([\w.:-]+)""", re.IGNORECASE),
    re.compile(rb"""<meta\b[^>]*?\bcharset\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE),
)
_IN_TEXT = (
    re.compile(rb"^(?:[^\n]*\n)?[ \t\f]*(?:#|//|;|%|\.\.)[^\n]*?coding[:=][ \t]*([-\w.]+)"),  # PEP 263, Emacs
    re.compile(
        rb"^[^%\n]*\\(?:usepackage\[|inputencoding\{)(?:[^\]}\n]*,)?([\w-]+)(?:\]\{inputenc\}|\})", re.MULTILINE
    ),
)
_OF_EMACS = re.compile("^iso-(?=latin)|-(?:unix|dos|mac)$", re.IGNORECASE)  # around the name
_TEX_NAMES = {
    "ansinew": "cp1252",
    "latin9": "iso8859-15",
    "applemac": "mac-roman",
    "utf8x": "utf-8",
    "koi8-ru": "koi8-u",
}
# Python's names of the web's encodings: their supersets, as browsers decode them (WHATWG Encoding).
_SUPERSETS = {
    "shift_jis": "cp932",
    "euc-kr": "cp949",
    "gbk": "gb18030",
    "gb18030": "gb18030",
    "big5": "big5hkscs",
    "iso-8859-8-i": "iso-8859-8",
    "x-mac-cyrillic": "mac-cyrillic",
    "macintosh": "mac-roman",
    "windows-874": "cp874",
    "x-user-defined": "cp1252",
    # A page whose declaration is readable is written in bytes, whatever it declares.
    "utf-16le": "utf-8",
    "utf-16be": "utf-8",
}


def declared_in_html(data: bytes) -> str | None:
    """Return the encoding that a page or an XML file declares at its beginning, as it is written there."""
    for pattern in _DECLARED:
        if found := pattern.search(data[:_HTML_WITHIN]):
            return found[1].decode("ascii", "replace")
    return None


def declared_in_text(data: bytes) -> str | None:
    """Return the encoding that an XML file, source code or a TeX file declares at its beginning."""
    if data[:100].lstrip().startswith(b"<?xml") and (found := _DECLARED[0].search(data[:_HTML_WITHIN])):
        return found[1].decode("ascii", "replace")
    for pattern in _IN_TEXT:
        if found := pattern.search(data[:_LINES_WITHIN]):
            return _TEX_NAMES.get(name := found[1].decode("ascii", "replace"), name)
    return None


def codec_of(label: str) -> str | None:
    """Return Python's name of an encoding's label ("iso-8859-1" means cp1252), or None if it is unknown.

    The label is the web's, or one that Python, Emacs or Vim knows ("latin-1", "cp850", "latin-1-unix").

    Raises:
        ImportError: the table of labels (webencodings) is not installed.
    """
    import webencodings

    label = _OF_EMACS.sub("", label)
    found = webencodings.lookup(label)
    if found is None:
        try:
            pythons = codecs.lookup(label)
        except (LookupError, ValueError):
            return None
        found = webencodings.lookup(pythons.name)
        if found is None:
            return pythons.name if pythons._is_text_encoding else None
    if found.name == "replacement":
        return None
    name = str(found.name)
    return _SUPERSETS.get(name, name.replace("windows-", "cp"))
