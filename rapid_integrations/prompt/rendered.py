"""`RenderedPrompt`: the exact text that a model reads."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rapid_integrations.prompt.segmentation import Span


@dataclass(frozen=True)
class RenderedPrompt:
    """The text that a model reads, and the places of its parts.

    Attributes:
        text: the text after the chat template.
        data_spans: text from outside (message contents, documents). Control tokens in it count as data.
        context_spans: the parts that are retrieved context, each within a data span.
        query: the question; "" if none was found (plain decoding).
        segmentation: how the spans were determined: "explicit" (or the value of a `Prompt`), "delimiters", "heuristic"
        or
            "plain".
        templated: whether a chat template wrote the control tokens, including the first one.
        earlier_query: the question of the human turn before the last; "" without one, or if the question was given.
    """

    text: str
    data_spans: tuple[Span, ...]
    context_spans: tuple[Span, ...]
    query: str
    segmentation: str
    templated: bool
    earlier_query: str = ""

    @property
    def contexts(self) -> tuple[str, ...]:
        """The texts of the context spans."""
        return tuple(self.text[start:end] for start, end in self.context_spans)

    def splice(self, replacements: Sequence[str]) -> RenderedPrompt:
        """Return this prompt with each context span replaced; everything else keeps its characters."""
        if len(replacements) != len(self.context_spans):
            raise ValueError(f"{len(replacements)} replacements for {len(self.context_spans)} context spans")
        pieces: list[str] = []
        ends, shifts = [0], [0]  # the old end of each span, and the characters added or removed up to it
        spans: list[Span] = []
        position = shift = 0
        for (start, end), new in zip(self.context_spans, replacements, strict=True):
            pieces += [self.text[position:start], new]
            spans.append((start + shift, start + shift + len(new)))
            shift += len(new) - (end - start)
            ends.append(end)
            shifts.append(shift)
            position = end
        pieces.append(self.text[position:])

        def follow(offset: int) -> int:
            return offset + shifts[bisect_right(ends, offset) - 1]

        return replace(
            self,
            text="".join(pieces),
            data_spans=tuple((follow(start), follow(end)) for start, end in self.data_spans),
            context_spans=tuple(spans),
        )
