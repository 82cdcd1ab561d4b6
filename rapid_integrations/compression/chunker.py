"""Cuts a text into chunks that tile it exactly, each of at most so many tokens, at natural breaks if possible.

A cut is a character position, so a character that a byte-level tokenizer spreads over several tokens is never split. A
token belongs to the chunk that holds its first character.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

from rapid_integrations.errors import ConfigurationError

DEFAULT_CHUNK_TOKENS = 512  # arXiv 2502.20330, section 4.1

_BLANK = r"[^\S\n\r\v\f\x85\u2028\u2029]"  # white space within a line
_NEWLINE = r"(?:\r\n|[\n\r\v\f\x85\u2028\u2029])"
LINE_END = re.compile(_NEWLINE)
SENTENCE_END = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’»)\]]*+(?=\s)|[。！？]++[”’」』）]*+")
# These breaks go from the best place for a cut to the worst; the cut is at the match's end. Possessive quantifiers and
# the lookbehind keep the cost of a megabyte of spaces or full stops linear.
_BREAKS = (
    re.compile(rf"{_NEWLINE}(?:{_BLANK}*+{_NEWLINE})++|\u2029"),  # paragraph
    LINE_END,
    SENTENCE_END,
    re.compile(r"(?=\s)(?!(?<=\r)\n)"),  # word: before the space, where most tokenizers begin the next word's token
)
_LONGEST_BREAK = 8  # characters; most breaks are shorter: a few line ends, or a full stop and its quotation marks


class Tokenizer(Protocol):
    """The part of a tokenizer that chunking needs."""

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Return the character (start, end) of each token of plain `text`, in order.

        Gaps are allowed (a tokenizer that drops white space), and so are overlaps (tokens that share a character).
        """
        ...


@dataclass(frozen=True, slots=True)
class Chunk:
    """The piece `text[start:end]` of a text, with its number `index` and its length `tokens` in tokens."""

    index: int
    start: int
    end: int
    text: str
    tokens: int


def chunk_text(text: str, tokenizer: Tokenizer, chunk_tokens: int = DEFAULT_CHUNK_TOKENS) -> list[Chunk]:
    """Cut `text` into chunks of at most `chunk_tokens` tokens whose texts join to `text` again.

    A chunk ends at the last paragraph break within its last quarter. Without one it ends at the last line break, else
    the last sentence end, else the last white space, else at its last token. A single character of more than
    `chunk_tokens` tokens is a chunk of its own, the only kind that exceeds the limit. The cost is linear in the length
    of `text`.

    Raises:
        ConfigurationError: `chunk_tokens` is under 1.
    """
    if chunk_tokens < 1:
        raise ConfigurationError(f"chunk_tokens={chunk_tokens}: a chunk holds at least one token")
    if not text:
        return []
    # The first character of each token. The search bisects, so the values are made monotone and kept inside the text.
    last = len(text) - 1
    starts = list(accumulate((min(max(start, 0), last) for start, _ in tokenizer.offsets(text)), max))
    chunks: list[Chunk] = []
    begin, first = 0, 0  # character and token that the next chunk begins with
    for end in _cuts(text, starts, chunk_tokens):
        following = bisect_left(starts, end, lo=first)
        chunks.append(Chunk(len(chunks), begin, end, text[begin:end], following - first))
        begin, first = end, following
    return chunks


def chunk_passages(
    text: str, tokenizer: Tokenizer, starts_of_passages: Sequence[int], chunk_tokens: int = DEFAULT_CHUNK_TOKENS
) -> list[Chunk]:
    """Cut `text` as `chunk_text` does, without joining the end of one passage to a part of the next.

    A chunk is one or several whole passages, or a part of one that is longer than `chunk_tokens`.
    """
    edges = sorted({0, *starts_of_passages, len(text)})
    starts = [start for start, _ in tokenizer.offsets(text)]
    cuts = [0]
    for begin, end in zip(edges, edges[1:], strict=False):
        if bisect_left(starts, end) - bisect_left(starts, cuts[-1]) <= chunk_tokens and cuts[-1] in edges:
            continue  # it fits into the chunk that was begun
        if begin != cuts[-1]:
            cuts.append(begin)
        if bisect_left(starts, end) - bisect_left(starts, begin) > chunk_tokens:
            cuts += [begin + chunk.start for chunk in chunk_text(text[begin:end], tokenizer, chunk_tokens)[1:]]
            cuts.append(end)
    cuts = [*dict.fromkeys(cut for cut in cuts if cut < len(text)), len(text)]
    return [
        Chunk(index, begin, end, text[begin:end], bisect_left(starts, end) - bisect_left(starts, begin))
        for index, (begin, end) in enumerate(zip(cuts, cuts[1:], strict=False))
    ]


def _cuts(text: str, starts: list[int], limit: int) -> Iterator[int]:
    """Yield the end of each chunk in characters. The last one is the end of the text."""
    begin, first = 0, 0
    while first + limit < len(starts):
        furthest = starts[first + limit]  # first character of the first token that does not fit
        if furthest == begin:
            cut = begin + 1  # a single character has more tokens than the limit
        else:
            cut = _natural_break(text, begin, starts[first + limit - limit // 4], furthest)
        yield cut
        begin, first = cut, bisect_left(starts, cut, lo=first)
    if begin < len(text):
        yield len(text)


def _natural_break(text: str, begin: int, earliest: int, furthest: int) -> int:
    """Return the best cut after `begin` in [earliest, furthest] (characters), or `furthest` if there is no break."""
    for pattern in _BREAKS:
        # A break may begin a little before the range, and a lookahead needs the text behind the cut.
        matches = pattern.finditer(text, max(begin, earliest - _LONGEST_BREAK), furthest + 1)
        ends = (match.end() for match in matches)
        cut = max((end for end in ends if begin < end and earliest <= end <= furthest), default=None)
        if cut is not None:
            return cut
    return furthest
