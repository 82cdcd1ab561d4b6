r"""Turn patterns of JSON schemas (ECMA-262) into the grammar library's syntax (Rust's, without look-around).

`\d`, `\w` and `\s` mean in ECMA-262 what they mean in no other dialect, and brackets within brackets are characters.
Look-ahead at the beginning of a pattern becomes a further pattern that must match, too. Passwords
(`^(?=.*[A-Z])(?=.*\d).{8,}$`) and pydantic's decimals use it. Nothing else that Rust's syntax lacks can be enforced.
"""

from __future__ import annotations

import re
from functools import lru_cache

from rapid_integrations.structured.bounds import MAX_NESTED_GROUPS, MAX_REGEX, half_character
from rapid_integrations.structured.library import json_schema_error

_CLASS_STAR = re.compile(r"\^?(?:\[(?P<in>[^\[\]^\\][^\[\]\\]*)\]|\[\^(?P<out>[^\[\]\\]+)\])[*+]\$")
_POSIX_CLASS = re.compile(r"\[:\^?[a-z]+:\]")
_REPEATED = r"(?P<atom>\[(?:[^\[\]\\]|\\.)+\]|(?<!\\)[\w ])\{(?P<least>[0-9]+),[0-9]*\}"
_LOOSE_BEGINNING, _LOOSE_END = re.compile(f"^{_REPEATED}(?![?+*])"), re.compile(f"{_REPEATED}$")
_CODE = re.compile(
    r"\\u(?P<high>[dD][89abAB][0-9a-fA-F]{2})\\u(?P<low>[dD][c-fC-F][0-9a-fA-F]{2})"
    r"|\\u\{(?P<braced>[0-9a-fA-F]{1,6})\}|\\u(?P<four>[0-9a-fA-F]{4})|\\c(?P<control>[a-zA-Z])|\\(?P<zero>0)(?![0-9])"
)
_NOT_ECMA = re.compile(r"(?<!\\)(?:\\\\)*(?:\(\?(?:P|#|[a-zA-Z]+\))|\\[aeAZzG])")  # Python's, PCRE's and Rust's only
_MAX_TRIED = 5_000  # characters of an expression that a model wrote
_BLANK = r"\t\n\x0b\x0c\r \xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
_SETS = {"d": "0-9", "w": "0-9A-Za-z_", "s": _BLANK}


@lru_cache(maxsize=256)
def enforceable_patterns(pattern: str) -> tuple[str, ...] | None:
    """Return patterns that together match what `pattern` matches, or None if that cannot be enforced."""
    if len(pattern) > MAX_REGEX or half_character(pattern) is not None:
        return None
    parts = _without_leading_lookahead(_without_loose_ends(_rewritten(pattern, python=False)))
    if parts is None or any(json_schema_error({"type": "string", "pattern": part}) for part in parts):
        return None
    return tuple(parts)


@lru_cache(maxsize=256)
def for_python(pattern: str) -> str:
    """Return `pattern` for the package `regex`, to be used with its flag V1 (sets within sets)."""
    return _rewritten(pattern, python=True)


def is_pattern(text: str) -> bool:
    """Whether a text is a regular expression. One that is too long to be tried counts as such."""
    import regex  # a dependency of transformers

    if len(text) > _MAX_TRIED:
        return True
    if _NOT_ECMA.search(text):
        return False
    try:
        regex.compile(for_python(text))
    except (regex.error, RecursionError):
        return False
    return True


def _rewritten(pattern: str, python: bool) -> str:
    out: list[str] = []
    position, in_class = 0, False
    while position < len(pattern):
        character, width = pattern[position], 1
        if character == "\\" and position + 1 < len(pattern):
            character, width = _escape(pattern, position, in_class, python)
        elif in_class:
            if posix := _POSIX_CLASS.match(pattern, position):  # of Ruby and PCRE; nobody means its characters
                character, width = posix[0], len(posix[0])
            elif character == "]":
                in_class = False
            elif character == "[" or character in "&|~-" and character == out[-1]:  # operators of sets elsewhere
                character = "\\" + character
        elif character == "[":
            in_class = True
            for more in ("^", "]"):  # a bracket that closes at once is a character in all dialects but ECMA-262
                if pattern[position + width : position + width + 1] == more:
                    character, width = character + ("\\]" if more == "]" else more), width + 1
        elif character == "$" and python:
            character = r"\Z"  # "$" would match before a line break at the end, too
        elif pattern.startswith("(?<", position) and pattern[position + 3 : position + 4] not in ("=", "!", ""):
            character, width = "(?P<", 3
        out.append(character)
        position += width
    return "".join(out)


def _escape(pattern: str, position: int, in_class: bool, python: bool) -> tuple[str, int]:
    """Return what an escape at `position` is in the other dialect, and its length."""
    letter = pattern[position + 1]
    if code := _CODE.match(pattern, position):
        if code["high"]:
            value = 0x10000 + ((int(code["high"], 16) - 0xD800) << 10) + int(code["low"], 16) - 0xDC00
        elif code["control"]:
            value = ord(code["control"]) % 32
        else:
            value = int(code["braced"] or code["four"] or code["zero"], 16)
        return (rf"\U{value:08x}" if python else rf"\u{{{value:x}}}"), len(code[0])
    if letter in "dwsDWS":
        members, outside = _SETS[letter.lower()], letter.isupper()
        if in_class and not outside:
            return members, 2
        return f"[{'^' * outside}{members}]", 2
    if not in_class and letter in "ZzA":  # of Python, Ruby and PCRE
        return ("^" if letter == "A" else r"\Z" if python else "$"), 2
    if letter in "<>/" or not letter.isascii():
        return letter, 2  # "\<" is the beginning of a word in Rust
    return pattern[position : position + 2], 2


def _without_loose_ends(pattern: str) -> str:
    """Return a pattern that matches somewhere in the same texts, with fewer states.

    What may be repeated at an end without an anchor need not be: "a{1,255}" is in the texts in which "a" is.
    """
    if _has_alternatives(pattern):
        return pattern
    return _LOOSE_END.sub(r"\g<atom>{\g<least>}", _LOOSE_BEGINNING.sub(r"\g<atom>{\g<least>}", pattern))


def _without_leading_lookahead(pattern: str) -> list[str] | None:
    """Return the patterns of the look-ahead at the beginning, and the rest, or None if it is something else."""
    anchored = pattern.startswith("^")
    rest = pattern[1:] if anchored else pattern
    parts: list[str] = []
    while rest.startswith(("(?=", "(?!")) and (anchored or rest[3:4] == "^"):
        end = _group_end(rest)
        if end is None or rest[end + 1 : end + 2] in ("*", "+", "?", "{"):
            return None
        inner, positive = rest[3:end], rest[2] == "="
        if positive:
            parts.append(inner if inner.startswith("^") and not _has_alternatives(inner) else f"^(?:{inner})")
        elif match := _CLASS_STAR.fullmatch(inner):
            outside = match["in"] is not None
            parts.append(f"[^{match['in']}]" if outside else f"[{match['out']}]")
            if inner.rstrip("$").endswith("+"):
                return None  # it may be empty: no single pattern says that
        else:
            return None
        rest = rest[end + 1 :]
    if parts and _has_alternatives(rest):
        return None  # the look-ahead belongs to the first alternative only
    return [*parts, ("^" if anchored else "") + rest]


def _has_alternatives(text: str) -> bool:
    """Whether a pattern is a choice of several ("a|b"), outside of all groups."""
    return _group_end(f"({text})", bars=True) is not None


def _group_end(text: str, bars: bool = False) -> int | None:
    """Return the position at which the first group closes; with `bars`, that of the first alternative in it."""
    depth, position, in_class = 0, 0, False
    while position < len(text):
        character = text[position]
        if character == "\\":
            position += 1
        elif in_class:
            in_class = character != "]"
        elif character == "[":
            in_class = True
        elif character == "|" and bars and depth == 1:
            return position
        elif character == "(":
            depth += 1
            if depth > MAX_NESTED_GROUPS:
                return None
        elif character == ")":
            depth -= 1
            if depth == 0:
                return None if bars else position
        position += 1
    return None
