"""Write the numbers of lists and clauses: 3, c, iii, C, III, 03, 三."""

from __future__ import annotations

_ROMAN = (
    *((1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc"), (50, "l"), (40, "xl")),
    *((10, "x"), (9, "ix"), (5, "v"), (4, "iv"), (1, "i")),
)
_ROMAN_UP_TO = 3999
_CHINESE = "零一二三四五六七八九"
_ENGLISH_ENDS = {1: "st", 2: "nd", 3: "rd"}


def written(number: int, form: str) -> str:
    """Return a number in a format of WordprocessingML (ISO 29500, ST_NumberFormat). Unknown formats give digits.

    >>> written(3, "lowerRoman"), written(28, "upperLetter"), written(12, "chineseCounting")
    ('iii', 'BB', '十二')
    """
    match form:
        case "none":
            return ""
        case "lowerLetter" | "upperLetter" if number > 0:
            # Word counts z, aa, bb. Browsers do not, but their lists seldom are so long.
            letters = chr(ord("a") + (number - 1) % 26) * ((number - 1) // 26 + 1)
            return (letters if form == "lowerLetter" else letters.upper())[:40]
        case "lowerRoman" | "upperRoman" if 0 < number <= _ROMAN_UP_TO:
            return _roman(number) if form == "lowerRoman" else _roman(number).upper()
        case "decimalZero":
            return f"{number:02}"
        case "ordinal":
            return f"{number}{'th' if 10 < number % 100 < 14 else _ENGLISH_ENDS.get(number % 10, 'th')}"
        case "chineseCounting" | "chineseCountingThousand" | "ideographDigital" | "japaneseCounting" if (
            0 < number < 100
        ):
            tens, ones = divmod(number, 10)
            return ("" if tens < 2 else _CHINESE[tens]) + ("十" if tens else "") + (_CHINESE[ones] if ones else "")
    return str(number)


def _roman(number: int) -> str:
    letters = ""
    for value, letter in _ROMAN:
        count, number = divmod(number, value)
        letters += letter * count
    return letters
