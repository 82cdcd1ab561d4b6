"""Removes bytes at the end of an answer that begin a character and do not finish it. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

_REPLACEMENT = "\ufffd"  # what a decoder writes for such bytes
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")  # a token for a single byte, in vocabularies with byte fallback


def without_unfinished(ids: Sequence[int], tokens: Sequence[str], decode: Callable[[Sequence[int]], str]) -> str:
    """Return the text of `ids`, without what a decoder writes for the unfinished character at their end.

    Args:
        ids: token ids of a text, without control tokens.
        tokens: the last tokens (at least four, if there are as many), spelt as in the vocabulary.
        decode: returns the text of ids.
    """
    text = decode(ids)
    if not text.endswith(_REPLACEMENT) or not tokens:
        return text
    if _BYTE.fullmatch(tokens[-1]):
        count = next((n for n, token in enumerate(reversed(tokens)) if not _BYTE.fullmatch(token)), len(tokens))
        run = bytes(int(token[3:5], 16) for token in tokens[len(tokens) - count :])
        # Each byte is a token, and the decoder writes one U+FFFD for each byte of an incomplete run.
        cut = unfinished_bytes(run)
        return decode(ids[: len(ids) - cut]) if cut else text
    tail = b"".join(bytes_of(token) for token in tokens)
    return text[:-1] if unfinished_bytes(tail) else text


def unfinished_bytes(data: bytes) -> int:
    """Return how many bytes at the end of `data` begin a character of UTF-8 that is not finished."""
    for count in range(1, min(3, len(data)) + 1):
        first = data[-count]
        if first & 0xC0 == 0x80:
            continue  # a continuation byte: its character began before
        needed = 2 if 0xC2 <= first <= 0xDF else 3 if 0xE0 <= first <= 0xEF else 4 if 0xF0 <= first <= 0xF4 else 0
        if needed <= count:
            return 0
        start = data[len(data) - count :]
        # Some second bytes are invalid after some first ones ("overlong" forms, surrogates) and begin no character.
        whole = (start + suffix for suffix in _SUFFIXES[needed - count])
        return count if any(_is_character(each) for each in whole) else 0
    return 0


_SUFFIXES = {1: (b"\x80", b"\xbf"), 2: (b"\x80\x80", b"\xa0\x80", b"\xbf\xbf"), 3: (b"\x80\x80\x80", b"\x90\x80\x80")}


def _is_character(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def single_byte(token: str) -> bytes | None:
    """Return the byte that a token of a vocabulary with byte fallback stands for; None if it is another token."""
    found = _BYTE.fullmatch(token)
    return bytes([int(found[1], 16)]) if found else None


def bytes_of(token: str) -> bytes:
    """Return the bytes of a token of a byte-level vocabulary. Any other token gives its UTF-8."""
    table = _byte_level()
    if all(character in table for character in token):
        return bytes(table[character] for character in token)
    return token.encode("utf-8", "surrogatepass")


@lru_cache(maxsize=1)
def _byte_level() -> dict[str, int]:
    """Return the byte for each letter of GPT-2's byte-level alphabet."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + n): byte for n, byte in enumerate(others)}
