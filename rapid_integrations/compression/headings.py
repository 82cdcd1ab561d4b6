"""Finds the headings of a text, and the heading that a chunk stands under. Pure."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence

from rapid_integrations.compression.chunker import Chunk

_SHORTEST_TEXT = 80  # characters in the line below a heading without a mark
_HEADING = re.compile(
    r"^[ \t]*+(?:(#{1,6})[ \t]+([^\n]{1,120})"  # Markdown
    rf"|([^\s#][^\n]{{1,79}})(?<![.!?,;。！？，；])[ \t]*\r?\n(?=[^\n]{{{_SHORTEST_TEXT}}}))",
    re.MULTILINE,
)


def headings_of(text: str, chunks: Sequence[Chunk]) -> list[str]:
    """Return for each of the `chunks` of `text` the headings it stands under and does not hold, "" without one.

    A heading is a line that begins with one to six `#`, or a line of at most 80 characters that does not end like a
    sentence, with a line of at least 80 characters below it. Headings with marks form a path from the highest level
    to the lowest, separated by line ends. One without a mark replaces the one before it.
    """
    starts: list[int] = []
    paths: list[str] = []
    path: list[tuple[int, str]] = []
    for match in _HEADING.finditer(text):
        level = len(match[1]) if match[1] else 7
        path = [*(above for above in path if above[0] < level), (level, (match[2] or match[3]).strip())]
        starts.append(match.start())
        paths.append("\n".join(title for _, title in path))
    under = [bisect_left(starts, chunk.start) - 1 for chunk in chunks]
    begins = set(starts)  # a chunk that begins with a heading holds it
    return [
        paths[index] if index >= 0 and chunk.start not in begins else ""
        for index, chunk in zip(under, chunks, strict=True)
    ]
