"""Where texts that are known from elsewhere stand in a prompt. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from rapid_integrations.prompt.segmentation import Span

_UNMISTAKABLE = 200  # characters; a shorter text may stand somewhere else by chance


def verbatim_spans(text: str, contexts: Iterable[str], *, repeated: bool = False) -> tuple[Span, ...]:
    """Return where `contexts` stand in `text`, in order, without overlap; white space around them is left out.

    A context that occurs twice in the list is looked for twice. One that does not stand there verbatim is passed over.

    Args:
        text: what is searched.
        contexts: what is looked for.
        repeated: whether a long one counts wherever it stands: a template may print its context twice, and a history
            the one of an earlier turn.
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
