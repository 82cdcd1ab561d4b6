"""Whether the characters of a PDF page mean something in Unicode, or are glyph numbers, private codes and controls."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

from rapid_integrations.documents.pdf_characters import LINE_END_HYPHEN, PageCharacters

_MOSTLY = 0.3  # share of characters without a meaning from which a page is called undecodable
_VOWELS = frozenset("aeiouyAEIOUY")
_NEVER = ("Cc", "Cn", "Cs")  # categories that no text holds
_PRIVATE_WITHIN_WORDS = re.compile(r"(?<=[^\W\d_])[\ue000-\uf8ff]|[\ue000-\uf8ff](?=[^\W\d_\ue000-\uf8ff])")
# Signs of Latin-1 that few texts hold many of: a font with letters of another script in their places.
_RARE_SIGNS = re.compile(r"[\u00a1-\u00ac\u00ae-\u00bf\u02c6-\u02dd]")


@dataclass(frozen=True)
class Meaning:
    """What a page's characters mean.

    Attributes:
        undecodable: most of them have no meaning in Unicode, or one that is no text.
        lost: number of those without a meaning.
    """

    undecodable: bool
    lost: int


def meaning(page: PageCharacters) -> Meaning:
    """Return whether the characters of a page can be read."""
    shown = [(i, each) for i, each in enumerate(page.characters) if not each.isspace() and each not in LINE_END_HYPHEN]
    if not shown:
        return Meaning(False, 0)
    counts = Counter(each for _, each in shown)
    private = sum(count for each, count in counts.items() if unicodedata.category(each) == "Co")
    never = sum(n for each, n in counts.items() if each == "\ufffd" or unicodedata.category(each) in _NEVER)
    guessed = [each for index, each in shown if page.is_guessed(index)]
    signs = sum(count for each, count in counts.items() if _RARE_SIGNS.match(each))
    undecodable = (
        private + never > _MOSTLY * len(shown)
        or signs > _MOSTLY * len(shown)
        or (len(guessed) > len(shown) / 2 and not _is_like_language("".join(each for _, each in shown)))
    )
    text = "".join(page.characters)
    within = sum(1 for _ in _PRIVATE_WITHIN_WORDS.finditer(text)) if private else 0
    return Meaning(undecodable, never + within + sum(not each.isascii() for each in guessed))


def _is_like_language(text: str) -> bool:
    """Whether letters without a stated meaning look like words of a Latin alphabet: most are, and vowels among them."""
    letters = [each for each in text if each.isalpha()]
    latin = [each for each in letters if each.isascii()]
    if len(letters) < 0.6 * len(text):
        return all(each.isdigit() or each in ".,-+%" for each in text)
    vowels = sum(each in _VOWELS for each in latin)
    return len(latin) > 0.6 * len(letters) and vowels > 0.22 * len(latin)
