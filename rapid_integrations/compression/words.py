"""Splits text of any script into words. Scripts without spaces give single characters. Pure."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # kana, Han
)
_MARKS = "\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0900-\u0dff\u1ab0-\u1aff"  # they follow their letter
UNSPACED_CHARACTER = re.compile(f"[{_UNSPACED}]")
_WORD = re.compile(rf"[{_UNSPACED}]|(?:[^\W_{_UNSPACED}]|[{_MARKS}])+")

_PARAGRAPH = 2000  # characters


def words_of(text: str) -> list[str]:
    """Return the words of `text` in order, without regard to case (NFKC, casefolded).

    A character of a script that is written without spaces (Chinese, Japanese, Thai, ...) is a word of its own.
    """
    return list(_paragraph(text)) if len(text) <= _PARAGRAPH else _split(text)


def _split(text: str) -> list[str]:
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


@lru_cache(maxsize=2048)
def _paragraph(text: str) -> tuple[str, ...]:
    """Return the words of a short text, which the next question about the same document asks for again."""
    return tuple(_split(text))
