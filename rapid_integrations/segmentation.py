"""Finding the retrieved context and the question in a text that says nothing about them. Imports no torch.

Known delimiters (what LlamaIndex, LangChain and common templates write around the context; the outermost ones), then a
heuristic (the long block is the context, a short last or first paragraph the question), then plain.
Spans that the caller gives ("explicit") never get here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

Span: TypeAlias = tuple[int, int]

MIN_CONTEXT_CHARACTERS = 2000  # shorter texts are cheap to read whole; they are not split
MAX_QUERY_CHARACTERS = 1000
MAX_INSTRUCTION_CHARACTERS = 300

_DASHES = re.compile(r"^-{5,}[ \t]*$", re.MULTILINE)
_TAG = re.compile(r"<(/?)(context|contexts|document|documents|passages)>", re.IGNORECASE)
_HEADING = re.compile(r"^(?:context|documents?|passages?)[ \t]*:[ \t]*\n?", re.MULTILINE | re.IGNORECASE)
_QUERY = re.compile(r"^[ \t]*(?:question|query|user query)[ \t]*:[ \t]*", re.MULTILINE | re.IGNORECASE)
# Of a text without white space at its end: to allow for some here too would be quadratic in a run of it.
_ANSWER = re.compile(r"\n[ \t]*(?:helpful |final )?answer[ \t]*:?$", re.IGNORECASE)


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


def segment(text: str) -> Segmentation:
    """Find the context and the question in `text`; linear in its length."""
    if len(text) >= MIN_CONTEXT_CHARACTERS:
        # Of several that are found the one that begins first: a document cannot begin before itself, so delimiters that
        # stand in it do not end the block that it is in.
        found_spans = [span for rule in (_between_dashes, _between_tags, _under_heading) if (span := rule(text))]
        for span in sorted(found_spans, key=lambda span: (span[0], -span[1])):
            if query := _query_around(text, span):
                return Segmentation("delimiters", (span,), query)
        if found := _longest_block(text):
            return found
    return Segmentation("plain", (), text.strip()[-MAX_QUERY_CHARACTERS:])


def _between_dashes(text: str) -> Span | None:
    """LlamaIndex: a line of dashes, the context, a line of dashes (the outermost two, if the text has more)."""
    lines = list(_DASHES.finditer(text))
    return _trimmed(text, lines[0].end(), lines[-1].start()) if len(lines) >= 2 else None


def _between_tags(text: str) -> Span | None:
    """From the first opening tag that is ever closed to the last tag that closes it."""
    opened: dict[str, int] = {}
    closed: dict[str, int] = {}
    for tag in _TAG.finditer(text):
        name = tag[2].lower()
        if tag[1]:
            closed[name] = tag.start()
        else:
            opened.setdefault(name, tag.end())
    spans = [(opened[name], closed[name]) for name in opened if closed.get(name, -1) >= opened[name]]
    return _trimmed(text, *min(spans)) if spans else None


def _under_heading(text: str) -> Span | None:
    """A line "Context:" near the start up to a line "Question: ..." near the end."""
    heading = _HEADING.search(text, 0, MAX_INSTRUCTION_CHARACTERS * 2)
    questions = list(_QUERY.finditer(text))
    if not heading or not questions:
        return None
    last = questions[-1].start()
    return _trimmed(text, heading.end(), last) if len(text) - last <= 2 * MAX_QUERY_CHARACTERS else None


def _trimmed(text: str, start: int, end: int) -> Span | None:
    body = text[start:end]
    start += len(body) - len(body.lstrip())
    end = start + len(body.strip())
    return (start, end) if end - start >= MIN_CONTEXT_CHARACTERS // 2 else None


def _query_around(text: str, span: Span) -> str:
    """Return the question after the context, or else before it."""
    after, before = _ANSWER.sub("", text[span[1] :].rstrip()), text[: span[0]]
    for part in (after, before):
        if match := next(iter(reversed(list(_QUERY.finditer(part)))), None):
            return part[match.end() :].strip().split("\n\n")[0][:MAX_QUERY_CHARACTERS]
    for part in (after, before):
        if words := re.sub(r"-{5,}|</?\w+>", " ", part).strip():
            return words.split("\n\n")[-1].strip()[-MAX_QUERY_CHARACTERS:]
    return ""


def _longest_block(text: str) -> Segmentation | None:
    """The question is a short last paragraph (or else a short first one); the rest is the context."""
    end = len(text.rstrip())
    body = _ANSWER.sub("", text[:end])
    cut = body.rfind("\n\n")
    if cut > 0 and 0 < len(body[cut:].strip()) <= MAX_QUERY_CHARACTERS:
        start = _after_instruction(text)
        query = body[cut:].strip()
        if match := _QUERY.match(query):
            query = query[match.end() :].strip()
        span = _trimmed(text, start, cut)
        return Segmentation("heuristic", (span,), query) if span and query else None
    first = text.find("\n\n")
    if 0 < first <= MAX_QUERY_CHARACTERS and text[:first].strip():
        span = _trimmed(text, first, end)
        return Segmentation("heuristic", (span,), text[:first].strip()) if span else None
    return None


def _after_instruction(text: str) -> int:
    """Return where the context starts behind a short first paragraph that ends in a colon ("Read this report:")."""
    first = text.find("\n\n")
    head = text[:first].strip() if 0 < first <= MAX_INSTRUCTION_CHARACTERS else ""
    return first if head.endswith(":") else 0
