r"""Turn patterns of JSON schemas (ECMA-262) into the grammar library's syntax (Rust's, without look-around).

Look-ahead at the beginning of a pattern becomes a further pattern that must match, too. Passwords
(`^(?=.*[A-Z])(?=.*\d).{8,}$`) and pydantic's decimals use it. Nothing else that Rust's syntax lacks can be enforced.
"""

from __future__ import annotations

import re
from functools import lru_cache

from rapid_integrations.structured.bounds import MAX_NESTED_GROUPS, MAX_REGEX, half_character
from rapid_integrations.structured.library import json_schema_error

_CLASS_STAR = re.compile(r"\^?(?:\[(?P<in>[^\[\]^\\][^\[\]\\]*)\]|\[\^(?P<out>[^\[\]\\]+)\])[*+]\$")
_NAMED_GROUP = re.compile(r"\(\?<(?![=!])")
_END_OF_TEXT = re.compile(r"(?<!\\)((?:\\\\)*)\\Z")


@lru_cache(maxsize=256)
def enforceable_patterns(pattern: str) -> tuple[str, ...] | None:
    """Return patterns that together match what `pattern` matches, or None if that cannot be enforced."""
    if len(pattern) > MAX_REGEX or half_character(pattern) is not None:
        return None
    parts = _without_leading_lookahead(_NAMED_GROUP.sub("(?P<", _END_OF_TEXT.sub(r"\1$", pattern)))
    if parts is None or any(json_schema_error({"type": "string", "pattern": part}) for part in parts):
        return None
    return tuple(parts)


def _without_leading_lookahead(pattern: str) -> list[str] | None:
    """Return the patterns of the look-ahead at the beginning, and the rest, or None if it is something else."""
    anchored = pattern.startswith("^")
    rest = pattern[1:] if anchored else pattern
    parts: list[str] = []
    while rest.startswith(("(?=", "(?!")) and (anchored or rest[3:4] == "^"):
        end = _group_end(rest)
        if end is None:
            return None
        inner, positive = rest[3:end], rest[2] == "="
        if positive:
            parts.append(inner if inner.startswith("^") else f"^(?:{inner})")
        elif match := _CLASS_STAR.fullmatch(inner):
            outside = match["in"] is not None
            parts.append(f"[^{match['in']}]" if outside else f"[{match['out']}]")
            if inner.rstrip("$").endswith("+"):
                return None  # it may be empty: no single pattern says that
        else:
            return None
        rest = rest[end + 1 :]
    return [*parts, ("^" if anchored else "") + rest]


def _group_end(text: str) -> int | None:
    """Return the position at which the first group closes."""
    depth, position, in_class = 0, 0, False
    while position < len(text):
        character = text[position]
        if character == "\\":
            position += 1
        elif in_class:
            in_class = character != "]"
        elif character == "[":
            in_class = True
        elif character == "(":
            depth += 1
            if depth > MAX_NESTED_GROUPS:
                return None
        elif character == ")":
            depth -= 1
            if depth == 0:
                return position
        position += 1
    return None
