"""What both models read for a request: the two texts, their tokens, and what was retrieved."""

from __future__ import annotations

from dataclasses import dataclass

from rapid_integrations.compression import Compression
from rapid_integrations.outputs import RetrievedChunk
from rapid_integrations.prompt import RenderedPrompt


@dataclass(frozen=True)
class PreparedPrompt:
    """What each of the two models reads for a request.

    Attributes:
        target, drafter: the rendered prompts; the drafter's has its context spans replaced.
        target_ids, drafter_ids: their tokens.
        compression: what was retrieved; None if nothing was (plain decoding, or no drafter in the request).
        query_coverage: how much of what the question names was retrieved (see `compression.query_coverage`); None if
            nothing was left out.
    """

    target: RenderedPrompt
    drafter: RenderedPrompt
    target_ids: list[int]
    drafter_ids: list[int]
    compression: Compression | None
    query_coverage: float | None = None

    @property
    def retrieved(self) -> tuple[RetrievedChunk, ...]:
        """The chunks that the drafter reads, in document order."""
        if self.compression is None:
            return ()
        return tuple(
            RetrievedChunk(
                context=context,
                start=scored.chunk.start,
                end=scored.chunk.end,
                text=scored.chunk.text,
                tokens=scored.chunk.tokens,
                score=scored.score,
            )
            for context, selected in enumerate(self.compression.selected)
            for scored in selected
        )
