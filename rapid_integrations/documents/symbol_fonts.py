"""Map characters of symbol fonts, which draw other signs than their codes: Symbol's Greek, Wingdings' boxes."""

from __future__ import annotations

# Adobe's Symbol encoding, where it differs from ASCII and stands in texts.
_SYMBOL = dict(zip(map(ord, "abcdefghijklmnopqrstuvwxyz"), "αβχδεφγηιϕκλμνοπθρστυϖωξψζ", strict=True))
_SYMBOL |= dict(zip(map(ord, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"), "ΑΒΧΔΕΦΓΗΙϑΚΛΜΝΟΠΘΡΣΤΥςΩΞΨΖ", strict=True))
_SYMBOL |= {0x22: "∀", 0x24: "∃", 0x27: "∋", 0x2A: "∗", 0x2D: "−", 0x40: "≅", 0x5C: "∴", 0x5E: "⊥", 0x7E: "∼"}
_SYMBOL |= {0xA2: "′", 0xA3: "≤", 0xA5: "∞", 0xA6: "ƒ", 0xA7: "♣", 0xAB: "↔", 0xAC: "←", 0xAD: "↑", 0xAE: "→"}
_SYMBOL |= {0xAF: "↓", 0xB0: "°", 0xB1: "±", 0xB2: "″", 0xB3: "≥", 0xB4: "×", 0xB5: "∝", 0xB6: "∂", 0xB7: "•"}
_SYMBOL |= {0xB8: "÷", 0xB9: "≠", 0xBA: "≡", 0xBB: "≈", 0xBC: "…", 0xC5: "⊕", 0xC6: "∅", 0xC7: "∩", 0xC8: "∪"}
_SYMBOL |= {0xCC: "⊂", 0xCD: "⊆", 0xCE: "∈", 0xCF: "∉", 0xD0: "∠", 0xD1: "∇", 0xD2: "®", 0xD3: "©", 0xD4: "™"}
_SYMBOL |= {0xD5: "∏", 0xD6: "√", 0xD7: "⋅", 0xD8: "¬", 0xD9: "∧", 0xDA: "∨", 0xDB: "⇔", 0xDC: "⇐", 0xDE: "⇒"}
_SYMBOL |= {0xE5: "∑", 0xF2: "∫"}
_WINGDINGS = {0x6F: "☐", 0x70: "☐", 0x71: "☐", 0x72: "☐", 0xA8: "☐", 0xFD: "☒", 0xFE: "☑", 0x78: "☒", 0x53: "☒"}
_WINGDINGS |= {0xFB: "✗", 0xFC: "✓", 0x6C: "●", 0x6E: "■", 0xA7: "▪", 0x9F: "•", 0xD8: "➢", 0xE0: "→", 0xE8: "➔"}
_WINGDINGS |= {0xDF: "←", 0xE1: "↑", 0xE2: "↓", 0xF0: "⇨", 0x4A: "☺", 0x4C: "☹", 0x28: "☎", 0x2A: "✉", 0x21: "✎"}
_WINGDINGS2 = {0x52: "☑", 0x50: "✓", 0x4F: "✗", 0x51: "☒", 0x53: "☒", 0x54: "☒", 0xA3: "☐", 0x30: "☐", 0x2A: "☐"}
_FONTS = {"symbol": _SYMBOL, "wingdings": _WINGDINGS, "wingdings 2": _WINGDINGS2}


def is_symbol_font(font: str) -> bool:
    """Whether a font of that name is a symbol font."""
    return font.lower() in _FONTS


def sign(font: str, code: int) -> str | None:
    """Return the character that a font draws for a code (private codes F000 to F0FF are those of 00 to FF)."""
    table = _FONTS.get(font.lower())
    within = code - 0xF000 if 0xF000 <= code <= 0xF0FF else code
    if table is not None and within in table:
        return table[within]
    if table is _SYMBOL and 0x20 <= within < 0x7F:
        return chr(within)
    if 0xE000 <= code <= 0xF8FF or table is not None or code > 0x10FFFF:
        return None
    return chr(code)
