"""Joins selected chunks to the text that the drafter reads, with the labels of their passages. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rapid_integrations.compression.chunker import Chunk, Tokenizer
from rapid_integrations.compression.passage_labels import LabelsOf


def label_tokens(
    chunks_by_context: Iterable[Sequence[Chunk]], labels: Iterable[LabelsOf], tokenizer: Tokenizer
) -> list[int]:
    """Return for each chunk the tokens of the label and of the closing text that it lacks of its passage."""
    return [
        len(tokenizer.offsets(of.before(chunk.start) + of.behind(chunk.end))) if of.passages else 0
        for of_context, of in zip(chunks_by_context, labels, strict=True)
        for chunk in of_context
    ]


def join_chunks(chunks: Sequence[Chunk], labels: LabelsOf | None = None) -> str:
    """Return the texts of `chunks` (of one text, in order): neighbours verbatim, a blank line across a gap.

    Existing line breaks count towards the blank line. A chunk from inside a passage of `labels` is put between the
    passage's label and its closing text.
    """
    parts: list[str] = []
    before: Chunk | None = None
    for chunk in chunks:
        head = ""
        if before is None or chunk.index != before.index + 1:
            new = (
                before is None or labels is None or labels.passage_at(before.end - 1) != labels.passage_at(chunk.start)
            )
            if labels is not None and before is not None and new:
                parts.append(labels.behind(before.end))
            head = labels.before(chunk.start) if labels is not None and new else ""
        if before is not None and chunk.index != before.index + 1:
            text = head + chunk.text
            tail = before.text[len(before.text.rstrip()) :] if parts[-1:] == [before.text] or not parts[-1] else ""
            parts.append("\n" * (2 - (tail + text[: len(text) - len(text.lstrip())]).count("\n")))
        parts += [head, chunk.text] if head else [chunk.text]
        before = chunk
    if labels is not None and before is not None:
        parts.append(labels.behind(before.end))
    return "".join(parts)


def runs_of(chunks: Sequence[Chunk]) -> list[list[Chunk]]:
    """Return the chunks of one text, in order, as runs of neighbours."""
    runs: list[list[Chunk]] = []
    for chunk in chunks:
        if runs and runs[-1][-1].index + 1 == chunk.index:
            runs[-1].append(chunk)
        else:
            runs.append([chunk])
    return runs
