"""Write superscripts and subscripts as plain text: 10^6, x^{n+1}, CO₂, x_{max}."""

from __future__ import annotations

import re

_LOWERED_DIGITS = str.maketrans("0123456789+-−()", "₀₁₂₃₄₅₆₇₈₉₊₋₋₍₎")
_ORDINALS = frozenset(("st", "nd", "rd", "th", "er", "re", "ère", "e", "o", "a", "ο", "™", "®", "©", "º", "ª", "°"))


def raised(text: str) -> str:
    """Return a superscript in one line. The "st" of 1st and the like stay unchanged.

    >>> raised("6"), raised("-6"), raised("th")
    ('^6', '^{-6}', 'th')
    """
    text = text.strip()
    if not text or text[0] in "[(" or text.lower() in _ORDINALS or not re.search(r"[\w*†‡§+−-]", text):
        return text
    return f"^{text}" if len(text) == 1 else f"^{{{text}}}"


def lowered(text: str) -> str:
    """Return a subscript in one line. Digits use Unicode's subscript digits.

    >>> lowered("2"), lowered("max")
    ('₂', '_{max}')
    """
    text = text.strip()
    if re.fullmatch(r"[0-9+−()-]+", text):
        return text.translate(_LOWERED_DIGITS)
    if not re.search(r"\w", text):
        return text
    return f"_{text}" if len(text) == 1 else f"_{{{text}}}"
