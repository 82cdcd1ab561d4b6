"""The prompts that both models read for a request: their texts, their tokens, and the retrieved chunks."""

from __future__ import annotations

from dataclasses import dataclass

from rapid_integrations.compression import Compression
from rapid_integrations.config import SamplingParams
from rapid_integrations.models.causal_lm import CausalLM
from rapid_integrations.outputs import RetrievedChunk
from rapid_integrations.prompt import RenderedPrompt

_ABOUT = 60  # characters


@dataclass(frozen=True)
class PreparedPrompt:
    """The prompts of target and drafter for a request.

    Attributes:
        target, drafter: the rendered prompts. In the drafter's, retrieved chunks replace the context spans.
        target_ids, drafter_ids: their tokens.
        compression: the result of retrieval; None without retrieval (plain decoding, or a request without a drafter).
        query_coverage: share of the question's distinctive words that the retrieved chunks contain (see
            `compression.query_coverage`); None if nothing was left out.
        answerable: probability that the documents answer the question (see `compression.answerable`); None if there are
            no documents, or if nothing was left out and the request may not abstain.
    """

    target: RenderedPrompt
    drafter: RenderedPrompt
    target_ids: list[int]
    drafter_ids: list[int]
    compression: Compression | None
    query_coverage: float | None = None
    answerable: float | None = None

    def abstains(self, sampling: SamplingParams) -> bool:
        """Whether a request with these settings is not answered, because the documents do not seem to say it."""
        least = sampling.abstain_below
        return least is not None and self.answerable is not None and self.answerable < least

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


@dataclass(frozen=True)
class Beginning:
    """What the prompts of all questions about some documents begin with.

    Attributes:
        token_ids: its tokens, and one more, which is not read.
        about: see `about`.
        models: the models whose prompts begin so, the target first.
    """

    token_ids: list[int]
    about: str
    models: tuple[CausalLM, ...]


def about(prompt: RenderedPrompt) -> str:
    """Return in a few words what a prompt is about: the beginning of its contexts, or else of the question."""
    texts = prompt.contexts or (prompt.query or prompt.text,)
    words = " ".join(texts[0][: 4 * _ABOUT].split())[:_ABOUT]
    return f"{words} (and {len(texts) - 1} more)" if len(texts) > 1 else words
