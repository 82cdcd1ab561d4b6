"""Cuts a text into windows, the pieces that an embedding model can read whole."""

from __future__ import annotations

import re
from typing import Any

from rapid_integrations.compression.chunker import chunk_text

_SURROGATE = re.compile("[\ud800-\udfff]")


class Windows:
    """Cuts a text into pieces of at most `room` tokens. Each piece is tokenised alone, as the model reads it."""

    def __init__(self, backend: Any, room: int) -> None:
        self._backend = backend  # our own tokenizers.Tokenizer, without truncation
        self._room = room

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Return the character offsets of the tokens of `text`, without special tokens."""
        # The library's `encode` holds Python's lock, which would stop all threads for as long.
        encoding = self._backend.encode_batch([encodable(text)], add_special_tokens=False)[0]
        return list(encoding.offsets)

    def split(self, text: str) -> list[str]:
        """Return the pieces, which join to `text`."""
        pieces, todo = [], [text]
        while todo:
            piece = todo.pop()
            parts = [chunk.text for chunk in chunk_text(piece, self, self._room)]
            if len(parts) <= 1:  # it fits, or it is a single character
                pieces.append(piece)
            else:
                # A cut within a word can change the tokens on both sides, so each part is counted again.
                todo.extend(reversed(parts))
        return pieces


def encodable(text: str) -> str:
    """Return `text`, at the same length, with lone surrogates replaced, as tokenizers do not accept them."""
    return _SURROGATE.sub("\ufffd", text)
