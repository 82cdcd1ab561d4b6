"""Which part of a prompt a label names."""

from __future__ import annotations

import re
from functools import lru_cache

from rapid_integrations.prompt.segmentation.lexicon import SPEAKERS
from rapid_integrations.prompt.segmentation.role_words import ROLES

TRIM = " \t\r*_#=~-[]【】《》「」<>()（）|`\"'"
_EITHER = re.compile(r"或|または|(?<=\w) (?:or|oder|ou|o|или|of) (?=\w)")
_PARENTHESES = re.compile(r"[(（\[][^()（）\[\]\n]{0,60}[)）\]]")
_PREPOSITION = re.compile(
    r"(?<=\w)\s(?:for|from|about|of|to|in|on|with|zu[rm]?|für|von|vom|aus|pour|de|du|des|d'|del|della|di|da|do|para|"
    r"per|van|voor|uit|"
    r"из|о|об|к|для|по)\s|(?<=\w)\sd'",
    re.IGNORECASE,
)
_PHRASES = {
    "ngữ cảnh": "context",
    "tài liệu": "context",
    "thông tin": "context",
    "câu hỏi": "question",
    "trả lời": "answer",
    "câu trả lời": "answer",
}


@lru_cache(maxsize=4096)
def role_of(name: str) -> str:
    """Return which part of a prompt a label names, "" if none: by its head word."""
    if name.casefold() in _PHRASES:
        return _PHRASES[name.casefold()]
    plain = _PARENTHESES.sub(" ", name).strip(TRIM + ":： ") or name
    if _EITHER.search(plain) and ROLES["question"].search(plain):
        return "question"  # "question or instruction"
    if speaker := SPEAKERS.get(plain.casefold()):
        return speaker
    for part in (_PREPOSITION.split(plain, maxsplit=1)[0], plain):
        last: tuple[int, str] = (-1, "")
        for role, pattern in ROLES.items():
            for match in pattern.finditer(part):
                last = max(last, (match.end(), role)) if match.end() != last[0] else last
        if last[1]:
            return last[1]
    return ""
