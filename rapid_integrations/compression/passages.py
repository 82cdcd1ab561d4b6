"""Locates passages that a host framework retrieved in the contexts of a prompt. Pure.

A retriever returns texts with scores. The prompt holds those texts one after another, or a document from which they
were cut. `chunks_of_passages` cuts each context at the places where they occur.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from rapid_integrations.compression.chunker import Chunk, Tokenizer
from rapid_integrations.compression.passage_labels import labelled_passages

_SHORTEST_FRAGMENT = 24  # characters; shorter fragments occur in too many passages


@dataclass(frozen=True, slots=True)
class Passage:
    """A retrieved text and its score on the retriever's own scale; higher is better, None is unknown.

    `chunk` is the position of the chunk it was made from, if the compressor made it.
    """

    text: str
    score: float | None = None
    chunk: int | None = None


@dataclass(frozen=True, slots=True)
class Located:
    """A range of a context, and the score of the passage that it holds."""

    start: int
    end: int
    score: float


def locate(context: str, passages: Sequence[Passage]) -> list[Located]:
    """Return the ranges of `context` that hold scored `passages` verbatim, in order and without overlap.

    A text that occurs several times is found each time. If two ranges overlap (chunks cut with an overlap), the earlier
    keeps the shared part. The rest may hold a piece of a passage, because frameworks cut passages to fit a prompt. Such
    a piece has the passage's score.
    """
    best: dict[str, float] = {}
    for passage in passages:
        text = passage.text.strip()
        if text and passage.score is not None:
            best[text] = max(passage.score, best.get(text, passage.score))
    spans: list[Located] = []
    for text, score in best.items():
        at = context.find(text)
        while at >= 0:
            spans.append(Located(at, at + len(text), score))
            at = context.find(text, at + len(text))
    covered: list[Located] = []
    for span in sorted(spans, key=lambda span: (span.start, -span.end)):
        start = max(span.start, covered[-1].end if covered else 0)
        if start < span.end:
            covered.append(Located(start, span.end, span.score))
    return sorted([*covered, *_fragments(context, covered, best)], key=lambda span: span.start)


def coverage(context: str, located: Sequence[Located]) -> float:
    """Return the share of the context's characters in `located`, not counting white space."""
    total = _solid(context)
    return sum(_solid(context[span.start : span.end]) for span in located) / total if total else 0.0


def chunks_of_passages(
    context: str, located: Sequence[Located], tokenizer: Tokenizer
) -> list[tuple[Chunk, float | None]]:
    """Return chunks that tile `context`, each with its score, or None for text outside of every passage.

    White space between two passages belongs to the one before it. A label before a passage ("Source 3:") and its
    closing text belong to the passage, so they are kept with it.
    """
    return _tiles(context, _with_labels(context, located), tokenizer)


def _tiles(context: str, located: Sequence[Located], tokenizer: Tokenizer) -> list[tuple[Chunk, float | None]]:
    edges: list[tuple[int, float | None]] = []  # the start of each chunk, and its score
    position = 0
    for span in located:
        if context[position : span.start].strip():
            edges.append((position, None))
        edges.append((span.start if edges else 0, span.score))
        position = span.end
    if not edges or context[position:].strip():
        edges.append((position if edges else 0, None))
    starts = [start for start, _ in tokenizer.offsets(context)]
    chunks: list[tuple[Chunk, float | None]] = []
    for index, (begin, score) in enumerate(edges):
        end = edges[index + 1][0] if index + 1 < len(edges) else len(context)
        tokens = bisect_left(starts, end) - bisect_left(starts, begin)
        chunks.append((Chunk(index, begin, end, context[begin:end], tokens), score))
    return chunks


def cut_at(text: str, pieces: Sequence[str], tokenizer: Tokenizer) -> list[Chunk] | None:
    """Return chunks that tile `text`, one for each of the consecutive `pieces` that a splitter made of it.

    A chunk reaches from the start of its piece to the start of the next. White space that the splitter dropped
    between two pieces stays with the first, and an overlap is only in the second. Pieces that do not occur in the text
    are skipped. Returns None if all are skipped, which means that the splitter rewrites its input.
    """
    begins: list[int] = []
    position = 0
    for piece in pieces:
        needle = piece.strip()
        at = text.find(needle, position) if needle else -1
        if at >= 0:
            begins.append(at)
            position = at + 1  # the next piece starts later, even if the two overlap
    if not begins:
        return None
    located = [Located(begin, end, 0.0) for begin, end in zip(begins, [*begins[1:], len(text)], strict=True)]
    located[0] = Located(0, located[0].end, 0.0)  # a beginning that the splitter dropped belongs to the first piece
    return [chunk for chunk, _ in _tiles(text, located, tokenizer)]


def _fragments(context: str, covered: Sequence[Located], best: dict[str, float]) -> list[Located]:
    found: list[Located] = []
    position = 0
    for start, end in [*((span.start, span.end) for span in covered), (len(context), len(context))]:
        gap = context[position:start]
        piece = gap.strip()
        if len(piece) >= _SHORTEST_FRAGMENT:
            scores = [score for text, score in best.items() if piece in text]
            if scores:
                begin = position + gap.index(piece)
                found.append(Located(begin, begin + len(piece), max(scores)))
        position = end
    return found


_CLOSING = re.compile(r"\s*(?:</[^<>\n]{1,42}>\s*)+")
_BLANK_LINE = re.compile(r"\r?\n(?:[ \t]*\r?\n)+")
_LONGEST_LABEL = 400


def _with_labels(context: str, located: Sequence[Located]) -> list[Located]:
    """Return the spans, each extended by its label and its closing text if the gaps between the spans hold them."""
    if not located:
        return []
    starts = {passage.body: passage.start for passage in labelled_passages(context)}
    firsts = context[: located[0].start]
    first = _label_of(firsts, starts, 0)
    lines = len([line for line in firsts[first:].split("\n") if line.strip()])
    widened = [replace(located[0], start=first)]
    for span in located[1:]:
        position = widened[-1].end
        gap = context[position : span.start]
        ended, begun = _split_gap(gap, starts, position, lines)
        widened[-1] = replace(widened[-1], end=position + ended)
        widened.append(replace(span, start=position + begun))
    rest = context[widened[-1].end :]
    if closing := _CLOSING.match(rest):
        widened[-1] = replace(widened[-1], end=widened[-1].end + closing.end())
    elif rest.strip() and not lines and len(rest) <= _LONGEST_LABEL and not _BLANK_LINE.match(rest):
        widened[-1] = replace(widened[-1], end=len(context))
    return widened


def _label_of(gap: str, starts: Mapping[int, int], offset: int) -> int:
    """Return the start in `gap` of the label of the passage behind it, or the gap's end without a label."""
    solid = len(gap.rstrip())
    for body in range(offset + solid, offset + len(gap) + 1):
        if body in starts and starts[body] >= offset:
            return starts[body] - offset
    breaks = list(_BLANK_LINE.finditer(gap))
    begin = breaks[-1].end() if breaks else 0
    label = gap[begin:]
    return begin if label.strip() and len(label) <= _LONGEST_LABEL else len(gap)


def _split_gap(gap: str, starts: Mapping[int, int], offset: int, lines: int) -> tuple[int, int]:
    """Split the gap between two passages: return the end of the first passage's part and the start of the second's.

    `lines` is the number of lines in the first passage's label.
    """
    if not gap.strip():
        return 0, len(gap)
    closing = _CLOSING.match(gap)
    ended = closing.end() if closing else 0
    if not gap[ended:].strip():
        return ended, len(gap)
    begun = ended + _label_of(gap[ended:], starts, offset + ended)
    before = gap[ended:begun]
    if before.strip() and not closing and not _BLANK_LINE.match(gap) and len(before) <= _LONGEST_LABEL:
        return (begun, begun) if not _BLANK_LINE.search(before.rstrip()) else (ended, begun)
    if begun == ended and not closing:
        solid = [at for at, line in _lines(gap) if line.strip()]
        if len(solid) > lines:  # "Content: ...\nSource: ...\nContent: ...": the last lines are the next one's
            cut = solid[len(solid) - lines] if lines else len(gap)
            return cut, cut
    return ended, begun


def _lines(text: str) -> Iterator[tuple[int, str]]:
    position = 0
    for line in text.split("\n"):
        yield position, line
        position += len(line) + 1


def _solid(text: str) -> int:
    return sum(len(word) for word in text.split())
