"""What of a document the drafter reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from rapid_integrations.config.names import given_in
from rapid_integrations.config.settings import Settings

PAPER_RETRIEVAL = {"chunk_tokens": 512, "search": "vectors", "neighbours": 0.0, "largest_share": 1 / 6}
"""The values of `CompressionConfig(preset="paper")` that differ from the defaults."""


class CompressionConfig(Settings):
    """Settings for the drafter's context: the best chunks within a budget, in document order.

    The budget is max(ratio * len, min(min_tokens, largest_share * len)) tokens for a context of `len` tokens. Chunks
    are ranked by words (BM25) and by the embedder's similarity together, and with the help of their neighbours. The
    defaults follow what was measured on questions with annotated evidence (docs/evaluation.md). `preset="paper"` takes
    chunks of 512 tokens and ranks by similarity alone (arXiv 2502.20330, section 4.1). Settings that are given beside a
    preset take precedence. At least `min_chunks` are kept, whatever their score.
    """

    preset: Literal["default", "paper"] = Field(
        default="default",
        description='where settings that are not given come from: "default" follows evidence, "paper" takes chunks of '
        "512 tokens, ranked by similarity alone, from at most a sixth of the context",
    )
    chunk_tokens: int = Field(
        default=128,
        ge=16,
        le=8192,
        description="maximum size of a chunk in target tokens. A chunk is scored, and kept or left out, as a whole",
    )
    search: Literal["hybrid", "vectors", "words"] = Field(
        default="hybrid",
        description='what ranks the chunks: "vectors" is the similarity of embeddings, "words" is BM25, which needs no '
        'embedder, and "hybrid" is both',
    )
    neighbours: float = Field(
        default=0.3,
        ge=0.0,
        le=1.0,
        description="how much a chunk gains from the chunks before and behind it; 0 ranks each chunk by itself. With "
        "1, the neighbours of the best chunk rank as high as it does",
    )
    rounds: int = Field(
        default=1,
        ge=1,
        le=2,
        description="number of searches; the second one looks for what the best chunk names and for what it lacks of "
        'the question, for questions of several hops. search="vectors" has one round',
    )
    threshold: float | None = Field(
        default=None,
        ge=-1.0,
        le=1.0,
        description="lowest cosine similarity to the question with which a chunk is kept. None takes the embedder's "
        'own threshold with search="vectors", and otherwise no threshold',
    )
    min_tokens: int = Field(
        default=4096,
        ge=1,
        description="lower limit of the budget in tokens, but at most largest_share of the context",
    )
    largest_share: float = Field(
        default=1 / 4,
        gt=0.0,
        le=1.0,
        description="largest share of a context that the drafter reads because of min_tokens",
    )
    ratio: float = Field(
        default=1 / 24,
        ge=0.0,
        le=1.0,
        description="share of a context's tokens that the drafter reads, if that is more than min_tokens allows",
    )
    min_chunks: int = Field(
        default=2, ge=1, description="number of best chunks that are kept whatever their score and size"
    )
    opening_tokens: int = Field(
        default=0,
        ge=0,
        description="tokens of the beginning of the first document that the drafter always reads, in whole chunks and "
        "at most a sixth of the budget: a contract's name, parties and date, which the words of a question do not find",
    )

    @model_validator(mode="before")
    @classmethod
    def _settings_of_the_preset(cls, values: object) -> object:
        if isinstance(values, Mapping) and values.get("preset") == "paper":
            return {**PAPER_RETRIEVAL, **values}
        return values

    def budget(self, context_tokens: int) -> int:
        """Return how many tokens of a context of `context_tokens` the drafter reads."""
        return max(int(self.ratio * context_tokens), min(self.min_tokens, int(self.largest_share * context_tokens)))

    def opening(self, budget: int) -> int:
        """Return how many tokens of a document's beginning the drafter reads in any case."""
        return min(self.opening_tokens, budget // 6)


given_in("compression=CompressionConfig({}=...)", CompressionConfig.model_fields)
