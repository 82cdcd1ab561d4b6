"""Where texts that are known from elsewhere stand in a prompt. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from rapid_integrations.segmentation import Span


def verbatim_spans(text: str, contexts: Iterable[str]) -> tuple[Span, ...]:
    """Return where `contexts` stand in `text`, in order, without overlap; white space around them is left out.

    A context that occurs twice in the list is looked for twice. One that does not stand there verbatim is passed over.
    """
    spans: list[Span] = []
    behind: dict[str, int] = {}
    for context in contexts:
        wanted = context.strip()
        start = text.find(wanted, behind.get(wanted, 0)) if wanted else -1
        if start >= 0:
            behind[wanted] = start + len(wanted)
            spans.append((start, start + len(wanted)))
    spans.sort(key=lambda span: (span[0], -span[1]))
    apart: list[Span] = []
    for span in spans:
        if not apart or span[0] >= apart[-1][1]:
            apart.append(span)
    return tuple(apart)
