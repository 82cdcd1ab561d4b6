"""Tokenizers that know nothing but the offsets of their tokens."""

import re


class WordTokenizer:
    """A token per word; white space belongs to none (gaps)."""

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return [match.span() for match in re.finditer(r"\S+", text)]


class SpacedWordTokenizer:
    """A token per word with the space before it, and per other white space: no gaps, as byte-level BPE has it."""

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return [match.span() for match in re.finditer(r" ?[^\s]+|\s", text)]


class Utf8Tokenizer:
    """A token per UTF-8 byte; the bytes of a character share its offsets (overlaps)."""

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return [
            (position, position + 1)
            for position, character in enumerate(text)
            for _ in character.encode("utf-8", "surrogatepass")
        ]


class CharacterTokenizer:
    """A token per character."""

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return [(position, position + 1) for position in range(len(text))]
