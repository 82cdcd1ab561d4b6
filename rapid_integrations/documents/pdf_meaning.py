"""Whether the characters of a PDF page mean something in Unicode, or are glyph numbers, private codes and controls."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

from rapid_integrations.documents.pdf_characters import LINE_END_HYPHEN, PageCharacters

_MOSTLY = 0.3  # share of characters without a meaning from which a page is called undecodable
_VOWELS = frozenset("aeiouyAEIOUY")
_ENOUGH = 10  # characters, to say what they are
_FEW, _SHARE = 5, 0.01  # characters of a page, and share of them, below which nothing is said of those that are lost
_PRIVATE_WITHIN_WORDS = re.compile(r"(?<=[^\W\d_])[\ue000-\uf8ff]|[\ue000-\uf8ff](?=[^\W\d_\ue000-\uf8ff])")
_PAIR = re.compile(r"[\ud800-\udbff][\udc00-\udfff]")  # one character
_FIRST_IDEOGRAPH = "\u2e80"  # codes from here on are hardly ever meant as they are
# Signs of Latin-1 that few texts hold many of: a font with letters of another script in their places.
_RARE_SIGNS = re.compile(r"[\u00a1-\u00ac\u00ae-\u00bf\u02c6-\u02dd]")


@dataclass(frozen=True)
class Meaning:
    """What a page's characters mean.

    Attributes:
        undecodable: most of them have no meaning in Unicode, or one that is no text.
        lost: number of those without a meaning; 0 if they are few.
    """

    undecodable: bool
    lost: int


def meaning(page: PageCharacters) -> Meaning:
    """Return whether the characters of a page can be read."""
    shown = [(i, each) for i, each in enumerate(page.characters) if not each.isspace() and each not in LINE_END_HYPHEN]
    if not shown:
        return Meaning(False, 0)
    text = _PAIR.sub("\U0001d465", "".join(each for _, each in shown))  # a surrogate pair is one character
    counts = Counter(text)
    odd = {each for each in counts if each == "\ufffd" or unicodedata.category(each) in ("Cc", "Cn", "Cs", "Co")}
    guessed = [each for index, each in shown if page.is_guessed(index)]
    if (
        sum(counts[each] for each in odd) > _MOSTLY * len(shown)
        or (len(shown) >= _ENOUGH and sum(counts[each] for each in counts if _RARE_SIGNS.match(each)) > len(shown) / 2)
        or (len(guessed) > len(shown) / 2 and not _is_like_language(text))
    ):
        return Meaning(True, 0)
    lost = sum(each >= _FIRST_IDEOGRAPH and each not in odd for each in guessed)
    if odd:
        lost += sum(counts[each] for each in odd if unicodedata.category(each) == "Cs")
        # Bullets are private characters, too, and stand by themselves.
        lost += sum(1 for _ in _PRIVATE_WITHIN_WORDS.finditer("".join(page.characters)))
        rest = {each for each in odd if unicodedata.category(each) not in ("Cs", "Co")}
        lost += sum(each in rest and page.is_drawn(index) for index, each in shown)
    return Meaning(False, lost if lost >= min(_FEW, _SHARE * len(shown)) else 0)


def _is_like_language(text: str) -> bool:
    """Whether letters without a stated meaning look like words of a Latin alphabet: most are, and vowels among them."""
    letters = [each for each in text if each.isalpha()]
    latin = [each for each in letters if each.isascii()]
    if len(letters) < 0.6 * len(text):
        return all(each.isdigit() or each in ".,-+%" for each in text)
    vowels = sum(each in _VOWELS for each in latin)
    return len(latin) > 0.6 * len(letters) and vowels > 0.22 * len(latin)
