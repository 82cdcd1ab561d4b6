r"""Write the characters of a JSON text out that its program wrote as escapes.

Python, PHP and .NET escape every letter beyond ASCII by default: "M\u00fcller" for "Müller". Neither a search for a
name nor a small model finds it in this form, and a Chinese character takes six tokens and more.
"""

from __future__ import annotations

import json
import re
from pathlib import PurePath

_NAMES = (".json", ".jsonl", ".ndjson", ".geojson", ".jsonld")
# Behind an even number of backslashes, which are escaped ones: a surrogate pair, a character, or PHP's slash.
_ESCAPE = re.compile(
    r"(?<!\\)((?:\\\\)*)(?:\\u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})|\\u([0-9a-f]{4})|\\/)", re.IGNORECASE
)
_STAY = frozenset('"\\\u2028\u2029')  # the text would be other JSON, or have other lines


def is_escaped_json(text: str, name: str) -> bool:
    """Whether a text is JSON, or one JSON value a line, with a backslash in it. It need not have a name of JSON."""
    if "\\" not in text or text.lstrip("\ufeff \t\n")[:1] not in ("{", "["):
        return False
    return PurePath(name).suffix.lower() in _NAMES or _is_json(text.lstrip().partition("\n")[0]) or _is_json(text)


def unescaped(text: str) -> str:
    """Return a JSON text with characters in place of their escapes, wherever it means the same."""
    return _ESCAPE.sub(_character, text)


def _character(found: re.Match[str]) -> str:
    before, high, low, code = found.groups()
    if high is not None:
        return before + chr(0x10000 + (int(high, 16) - 0xD800) * 0x400 + int(low, 16) - 0xDC00)
    if code is None:
        return before + "/"
    character = chr(int(code, 16))
    shown = character.isprintable() or character == "\xa0"
    return before + character if shown and character not in _STAY else found[0]


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
