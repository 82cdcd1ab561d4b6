"""The law that an answer follows, and how its tokens are drafted."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, Field

from rapid_integrations.config.names import given_in
from rapid_integrations.config.settings import Settings

TailRule = Literal["mask", "restore"]
LawName = Literal["auto", "target", "augmented", "paper", "lenient"]

Eta: TypeAlias = Annotated[float, Field(ge=0.0, le=1000.0, allow_inf_nan=False)] | Literal["auto", "nearest"]
"""Strength of the knowledge transfer from drafter to target; a name chooses it at each position."""

PAPER_DRAFT_LENGTH = 10  # gamma in arXiv 2502.20330, section 4


class SpeculationFields(BaseModel):
    """The fields of `SpeculationConfig`, for classes that carry them as their own."""

    law: LawName = Field(
        default="auto",
        description='the distribution of the output: "target" is p (lossless), "augmented" is exactly p_hat, "paper" '
        'is the published rule, which follows neither, and "lenient" is p with draft tokens that are nearly as likely '
        'as the best one (lossy). "auto" is "target" if the drafter is smaller than the target, else "augmented"',
    )
    leniency: float = Field(
        default=0.85,
        gt=0.0,
        le=1.0,
        description='for the law "lenient": a draft token stands if its probability is at least this share of the best '
        "token's. A smaller value is faster and further from the target",
    )
    eta: Eta | None = Field(
        default=None,
        description="strength of the shift eta (q - p) towards the drafter. 0 uses the target alone; a larger value "
        'gives retrieval more weight. "auto" chooses it at each position. None is "auto", except for the law "paper": '
        "there it is 10, or 40 if the drafter is larger than the target",
    )
    tail_rule: TailRule = Field(
        default="mask",
        description='"mask" shifts only tokens with q >= tail_alpha * max q, as the released code does. "restore" '
        "resets tokens with p_hat < tail_alpha * max p_hat to p (Eq. 9)",
    )
    tail_alpha: float = Field(
        default=0.1,
        ge=0.0,
        le=1.0,
        description="a token below this share of the largest probability counts as improbable; 0 switches the tail "
        "rule off",
    )
    proposer: str = Field(
        default="auto",
        description='what drafts tokens: "drafter", "draft_lm" (a third model), "draft_head" or "draft_head_tree" (a '
        'trained head), "prompt_lookup", "retrieval_tree", "datastore", "hybrid", "tree_hybrid", "adaptive" (whichever '
        'is fastest so far), "skipped_layers" (the target without some layers), "magicdec" or "triforce" (the target '
        'over few rows of its own cache) or "none" (one token at a time). "auto" is "tree_hybrid" on processors, '
        '"hybrid" elsewhere, and "drafter" for the published law. It changes the speed, but not the distribution of '
        "the output",
    )
    datastore: str | None = Field(
        default=None,
        description="file with an index of your own texts (rapid datastore build), from which the proposers "
        '"datastore", "retrieval_tree" and "tree_hybrid" copy',
    )
    datastore_grows: bool = Field(
        default=False,
        description="whether answers are added to the datastore, in a file beside it, for later requests. A sample "
        "with a seed is added, but does not look at them",
    )
    draft_length: Annotated[int, Field(ge=1, le=64)] | Literal["auto"] = Field(
        default="auto",
        description='K, the number of tokens drafted in a round. "auto" chooses the fastest from acceptance and the '
        "costs of the steps. A round has 31 at most, which one pass of few rows verifies",
    )
    max_draft_length: int = Field(
        default=16,
        ge=1,
        le=64,
        description='maximum number of tokens that draft_length="auto" drafts in a round, which has 31 at most',
    )
    drafter_weights: tuple[Annotated[float, Field(gt=0.0, allow_inf_nan=False)], ...] | None = Field(
        default=None,
        description="for an engine with several drafters, the weight of each in q: first that of the drafter, then "
        "those of more_drafters. They are divided by their sum. None gives all the same",
    )
    draft_skip_layers: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(
        default=None,
        description='layers that the proposer "skipped_layers" leaves out, by number from 0 on. None chooses them '
        "during the request, by acceptance for their cost",
    )
    draft_sinks: int = Field(
        default=64,
        ge=1,
        description='first tokens of the prompt that the proposers "magicdec" and "triforce" draft over, rounded up to '
        "whole blocks of 64",
    )
    draft_recent: int = Field(
        default=256, ge=1, description="last tokens that they draft over, rounded likewise; the answer comes on top"
    )
    draft_retrieved: bool = Field(
        default=True, description="whether they also draft over the target's rows of the passages that were retrieved"
    )
    chunk_cache: Literal["off", "target", "view"] = Field(
        default="off",
        description='where the drafter gets the keys and values of the retrieved chunks. With "off", it reads them. '
        'With "target", it takes the rows that the target has of the document, moved to their new positions, and reads '
        "the first 16 tokens of each run of them. This saves nearly all of its prefill. It changes q, but no answer of "
        'the law "target". With "view", it reads the rows where they lie, without a copy, and only the question '
        "anew. Both need self-speculation",
    )


class SpeculationConfig(SpeculationFields, Settings):
    """The distribution of the output (the law), and how tokens are drafted (proposer and draft length).

    - `law`: "target" is lossless; "augmented" is exactly p_hat at every position; "paper" is the published residual
      and bonus rule (arXiv 2502.20330, Eq. 10), whose output depends on the draft length. "lenient" is lossy: it is
      "target", but draft tokens also stand that are nearly as likely as the best one (`leniency`), so that its output
      depends on what is proposed. "auto" is "augmented" for a drafter at least as large as the target and "target" for
      a smaller one.
    - `eta`: strength of the knowledge transfer. "nearest" takes, at each position, the value that brings p_hat nearest
      to q, times the relevance of the retrieved text. "auto" takes less if q contradicts p, unless retrieval found what
      the question names (`rapid_integrations.sampling.adaptive_eta`). None is "auto", except for the law "paper": there
      it is 10, or 40 with a larger drafter.
    - `tail_rule`, `tail_alpha`: "mask" drops the shift of tokens with q < alpha * max q; "restore" is Eq. 9.
    - `proposer`: a name registered in `rapid_integrations.proposers`; "none" decodes one token at a time. "hybrid"
      copies if the text repeats and drafts otherwise, and "tree_hybrid" copies several continuations at once. "auto" is
      "tree_hybrid" on processors, "hybrid" elsewhere, and "drafter" for the law "paper". "adaptive" prefers a tree of
      copies, drafts or nothing, whichever gave the most tokens for its cost so far.
    - `draft_length`: "auto" picks the length with the best expected speed, at most `max_draft_length`.
    - `chunk_cache`: "target" and "view" spare the drafter its prefill. q is then that of a drafter whose chunks have
      seen what stands before them in the document (`rapid_integrations.decoding.moved_rows`, `decoding.chunk_view`).
    """


given_in("speculation=SpeculationConfig({}=...)", SpeculationFields.model_fields)
