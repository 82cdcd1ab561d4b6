"""What segmentation returns, and its limits. Imports nothing of the package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

Span: TypeAlias = tuple[int, int]

MIN_CONTEXT_CHARACTERS = 2000  # shorter texts are cheap to read whole; they are not split
MIN_BLOCK_CHARACTERS = MIN_CONTEXT_CHARACTERS // 2  # of a context within a text: less is not worth a split
MAX_QUERY_CHARACTERS = 1000  # of a question that nothing ends; a labelled one may be twice as long
MAX_TAIL_CHARACTERS = 6000  # of instructions behind the context, all together


@dataclass(frozen=True)
class Segmentation:
    """Where the context stands in a text and what is asked.

    Attributes:
        method: "explicit", "delimiters", "heuristic" or "plain" (no context found).
        context_spans: (start, end) character offsets.
        query: the question, "" where none was found.
    """

    method: str
    context_spans: tuple[Span, ...]
    query: str


def trimmed(text: str, start: int, end: int) -> Span:
    """Return the span without the white space at its edges."""
    body = text[start:end]
    start += len(body) - len(body.lstrip())
    return start, start + len(body.strip())
