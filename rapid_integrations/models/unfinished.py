"""Bytes at the end of an answer that begin a character and never finish it. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

_REPLACEMENT = "\ufffd"  # what a decoder writes for them
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")  # a byte of its own, in vocabularies with byte fallback


def without_unfinished(ids: Sequence[int], tokens: Sequence[str], decode: Callable[[Sequence[int]], str]) -> str:
    """Return the text of `ids`, without what a decoder writes for the unfinished character at their end.

    Args:
        ids: of a text, control tokens left out.
        tokens: the last ones (four at least, if there are as many), as the vocabulary writes them.
        decode: gives the text of ids.
    """
    text = decode(ids)
    if not text.endswith(_REPLACEMENT) or not tokens:
        return text
    if _BYTE.fullmatch(tokens[-1]):
        count = next((n for n, token in enumerate(reversed(tokens)) if not _BYTE.fullmatch(token)), len(tokens))
        run = bytes(int(token[3:5], 16) for token in tokens[len(tokens) - count :])
        # A byte is a token, and the decoder writes one mark for each byte of a run that is not whole.
        cut = unfinished_bytes(run)
        return decode(ids[: len(ids) - cut]) if cut else text
    tail = b"".join(_bytes_of(token) for token in tokens)
    return text[:-1] if unfinished_bytes(tail) else text


def unfinished_bytes(data: bytes) -> int:
    """Return how many bytes at the end of `data` begin a character of UTF-8 that is not finished."""
    for count in range(1, min(3, len(data)) + 1):
        first = data[-count]
        if first & 0xC0 == 0x80:
            continue  # it goes on a character that began before
        needed = 2 if 0xC2 <= first <= 0xDF else 3 if 0xE0 <= first <= 0xEF else 4 if 0xF0 <= first <= 0xF4 else 0
        if needed <= count:
            return 0
        start = data[len(data) - count :]
        # Not every second byte can follow every first one ("overlong" forms, surrogates): then nothing was begun.
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


def _bytes_of(token: str) -> bytes:
    """Return the bytes of a token of a byte-level vocabulary; of any other token its UTF-8."""
    table = _byte_level()
    if all(character in table for character in token):
        return bytes(table[character] for character in token)
    return token.encode("utf-8", "surrogatepass")


@lru_cache(maxsize=1)
def _byte_level() -> dict[str, int]:
    """Return the byte of each letter of the byte-level alphabet (GPT-2's)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + n): byte for n, byte in enumerate(others)}
