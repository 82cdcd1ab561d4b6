"""Patterns for a template's own text in what a model writes, where white space may differ."""

from __future__ import annotations

import re
from functools import lru_cache


@lru_cache(maxsize=1024)
def loose(literal: str) -> re.Pattern[str]:
    """Return a pattern for `literal` in which white space may differ or be missing."""
    return re.compile(loose_source(literal))


def loose_source(literal: str) -> str:
    """Return the source of `loose`, to be joined with others."""
    return r"\s*".join(re.escape(part) for part in re.split(r"\s+", literal))


def prefixes(literal: str) -> str:
    """Return a pattern for any beginning of `literal`, from nothing to the whole. White space may differ."""
    pattern = ""
    for character in reversed("".join(literal.split())):
        pattern = rf"(?:\s*{re.escape(character)}{pattern})?"
    return pattern
