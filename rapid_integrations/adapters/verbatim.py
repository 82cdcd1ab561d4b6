"""Search for known texts in a prompt. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from rapid_integrations.prompt.segmentation import Span

_UNMISTAKABLE = 200  # characters; a shorter text may occur elsewhere by chance


def verbatim_spans(text: str, contexts: Iterable[str], *, repeated: bool = False) -> tuple[Span, ...]:
    """Return the spans of `contexts` in `text`, in order, without overlap and without surrounding white space.

    A context that is twice in the list is searched twice. One that does not occur verbatim is skipped.

    Args:
        text: the text to search in.
        contexts: the texts to search for.
        repeated: whether every occurrence of a long context counts. A template may print its context twice, and a
            history may repeat the context of an earlier turn.
    """
    spans: list[Span] = []
    behind: dict[str, int] = {}
    for context in contexts:
        wanted = context.strip()
        start = text.find(wanted, behind.get(wanted, 0)) if wanted else -1
        if start >= 0:
            behind[wanted] = start + len(wanted)
            spans.append((start, start + len(wanted)))
    if repeated:
        for wanted, end in behind.items():
            while len(wanted) >= _UNMISTAKABLE and (start := text.find(wanted, end)) >= 0:
                end = start + len(wanted)
                spans.append((start, end))
    spans.sort(key=lambda span: (span[0], -span[1]))
    apart: list[Span] = []
    for span in spans:
        if not apart or span[0] >= apart[-1][1]:
            apart.append(span)
    return tuple(apart)
