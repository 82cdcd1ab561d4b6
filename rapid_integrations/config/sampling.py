"""How tokens are drawn from the law, and when an answer ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import BaseModel, Field, field_validator, model_validator

from rapid_integrations.config.names import given_in
from rapid_integrations.config.settings import Settings
from rapid_integrations.config.structured import StructuredOutput

ABSTENTION = "The documents do not say."
"""What is answered by default if the documents do not seem to answer the question."""


class SamplingFields(BaseModel):
    """The fields of `SamplingParams`, for classes that carry them as their own (the frameworks' LLM classes)."""

    temperature: float = Field(
        default=0.0,
        ge=0.0,
        le=10.0,
        allow_inf_nan=False,
        description="T in softmax(z / T), for both target and drafter. 0 decodes greedily: it takes the most probable "
        "token of the law at T = 1",
    )
    top_k: int = Field(default=0, ge=0, description="keeps this many of the law's most probable tokens; 0 keeps all")
    top_p: float = Field(
        default=1.0,
        gt=0.0,
        le=1.0,
        description="keeps the law's most probable tokens until their probabilities sum to this; 1 keeps all",
    )
    min_p: float = Field(
        default=0.0,
        ge=0.0,
        lt=1.0,
        description="drops tokens less probable than this share of the law's most probable token; 0 keeps all",
    )
    repetition_penalty: float = Field(
        default=1.0,
        gt=0.0,
        le=10.0,
        description="divides positive logits, and multiplies negative logits, of tokens that occur in the target's "
        "prompt or in the output. A value above 1 makes them less likely; 1 switches it off",
    )
    frequency_penalty: float = Field(
        default=0.0,
        ge=-2.0,
        le=2.0,
        description="lowers a token's logit by this for each time that it occurs in the output; 0 switches it off",
    )
    presence_penalty: float = Field(
        default=0.0,
        ge=-2.0,
        le=2.0,
        description="lowers a token's logit by this once it occurs in the output; 0 switches it off",
    )
    logit_bias: tuple[tuple[Annotated[int, Field(ge=0)], Annotated[float, Field(ge=-100.0, le=100.0)]], ...] = Field(
        default=(),
        description="is added to the logits of single tokens, of target and drafter alike: {token id: from -100 to "
        "100}. -100 practically forbids a token",
    )
    max_new_tokens: int = Field(
        default=256, ge=1, description='maximum length of the answer in tokens; if it is cut, finish_reason is "length"'
    )
    min_new_tokens: int = Field(
        default=0,
        ge=0,
        description="the model's own end of an answer is impossible before so many tokens: the end tokens' logits are "
        "-inf. A stop string still ends it. Not with a required form or with tools, which say where they end",
    )
    stop: tuple[str, ...] = Field(
        default=(), description="strings that end the answer when they appear. They are not part of it"
    )
    seed: int | None = Field(
        default=None,
        ge=0,
        lt=2**63,
        description="makes sampled output reproducible. The draft length then depends on modelled costs, not on "
        "measured times. With None, each request samples differently",
    )
    abstain_below: float | None = Field(
        default=None,
        ge=0.0,
        le=1.0,
        description="the answer is `abstain_text`, and no model runs, if the probability that the documents answer the "
        'question (`stats.answerable`) is below this; finish_reason is then "abstained". None always answers. Requests '
        "with tools or a required form are always answered",
    )
    abstain_text: str = Field(default=ABSTENTION, description="the answer if `abstain_below` withholds it")
    structured: StructuredOutput | None = Field(
        default=None,
        description="the required form of the answer (a JSON schema, a regular expression or a grammar), enforced "
        "token by token",
    )

    @field_validator("logit_bias", mode="before")
    @classmethod
    def _a_mapping_is_its_pairs(cls, value: object) -> object:
        return tuple(value.items()) if isinstance(value, Mapping) else value

    @field_validator("stop", mode="before")
    @classmethod
    def _one_string_is_a_list_of_one(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("stop")
    @classmethod
    def _no_empty_stop(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "" in value:
            raise ValueError("a stop string must not be empty")
        for index, text in enumerate(value):
            half = next((at for at, each in enumerate(text) if "\ud800" <= each <= "\udfff"), None)
            if half is not None:
                raise ValueError(
                    f"stop string {index} is not valid text: its character {half} is half of a surrogate pair, which "
                    "no answer contains. Leave it out"
                )
        return value


class SamplingParams(SamplingFields, Settings):
    """Settings for drawing tokens from the law.

    `temperature=0` decodes greedily: it takes the most probable token of the law at T = 1. Truncation applies to the
    law, not to target and drafter separately, in the order top-k, top-p, min-p.
    """

    @model_validator(mode="after")
    def _the_least_length_is_possible(self) -> Self:
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError(
                f"min_new_tokens={self.min_new_tokens} is above max_new_tokens={self.max_new_tokens}: no answer has "
                "both. Lower the one or raise the other"
            )
        if self.min_new_tokens and self.structured is not None:
            raise ValueError(
                f"min_new_tokens={self.min_new_tokens} with structured=...: the form says where the answer ends. Ask "
                "for longer values in the form (minLength, minItems), or leave min_new_tokens out"
            )
        return self

    @property
    def greedy(self) -> bool:
        """Whether tokens are chosen by argmax."""
        return self.temperature == 0.0


given_in("sampling=SamplingParams({}=...)", SamplingFields.model_fields)
