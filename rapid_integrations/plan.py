"""From a request's settings to what will be done: the law, the technique, and the draft length."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from rapid_integrations.config import PAPER_DRAFT_LENGTH, SamplingParams, SpeculationConfig
from rapid_integrations.decoding.draft_length import AdaptiveDraftLength, CostModel, DraftLength, FixedDraftLength
from rapid_integrations.decoding.sequence import Sequence
from rapid_integrations.errors import ConfigurationError
from rapid_integrations.models.causal_lm import CausalLM
from rapid_integrations.prepared import PreparedPrompt
from rapid_integrations.proposers import proposer_class
from rapid_integrations.sampling import Law

ETA_SAME_SIZE = 10.0
ETA_LARGER_DRAFTER = 40.0

# Modelled share of a verify pass that each further token adds; for seeded requests, which must not depend on clocks.
_SHARE_PER_TOKEN = 0.05


@dataclass(frozen=True)
class Plan:
    """A request's law and technique, with every default decided."""

    law: Law
    proposer: str
    draft_length: int | Literal["auto"]
    max_draft_length: int

    @property
    def uses_drafter(self) -> bool:
        """Whether a drafter reads a prompt of its own."""
        return self.law.needs_drafter or self.proposer == "drafter"

    def for_prompts(self, prepared: PreparedPrompt, self_speculation: bool) -> Plan:
        """Drop the drafter where it is the target reading the same tokens: p_hat is p then, and drafts save nothing.

        A draft length that was asked for is obeyed all the same (naive speculative decoding, to compare with).
        """
        if not self_speculation or prepared.drafter_ids != prepared.target_ids:
            return self
        law = replace(self.law, kind="target")
        idle = self.proposer == "drafter" and self.draft_length == "auto"
        return Plan(law, "none" if idle else self.proposer, self.draft_length, self.max_draft_length)


def plan_request(speculation: SpeculationConfig, sampling: SamplingParams, target: CausalLM, drafter: CausalLM) -> Plan:
    """Decide every default of a request.

    Raises:
        ConfigurationError: an unknown proposer, or one that the law does not take.
    """
    proposer_class(speculation.proposer)  # refuses an unknown name
    larger = drafter.num_parameters > target.num_parameters
    smaller = drafter.num_parameters < target.num_parameters
    kind = ("target" if smaller else "augmented") if speculation.law == "auto" else speculation.law
    if kind == "paper" and speculation.proposer != "drafter":
        raise ConfigurationError(
            f"law='paper' with proposer={speculation.proposer!r}: the published residual is defined for drafts of "
            "the drafter only. Use proposer='drafter', or law='augmented', which takes any proposer"
        )
    default_eta = ETA_LARGER_DRAFTER if larger else ETA_SAME_SIZE
    law = Law(
        kind=kind,
        temperature=sampling.temperature,
        eta=default_eta if speculation.eta is None else speculation.eta,
        tail_rule=speculation.tail_rule,
        tail_alpha=speculation.tail_alpha,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        min_p=sampling.min_p,
    )
    return Plan(law, speculation.proposer, speculation.draft_length, speculation.max_draft_length)


def choose_draft_length(
    plan: Plan, sampling: SamplingParams, target: Sequence, drafter: Sequence | None
) -> DraftLength:
    """Return what chooses K for a request whose prompts are prefilled."""
    if plan.draft_length != "auto":
        return FixedDraftLength(plan.draft_length)
    if plan.proposer == "none":
        return FixedDraftLength(1)
    if plan.law.kind == "paper":  # its output depends on the draft length, which must not depend on timing
        return FixedDraftLength(PAPER_DRAFT_LENGTH)
    # In units of bytes moved, which is what a step costs where memory bandwidth is the limit.
    verify = _step_bytes(target)
    draft = 0.0 if drafter is None else _step_bytes(drafter)
    costs = CostModel(
        propose=draft if plan.proposer == "drafter" else 0.0,
        score=draft if plan.law.needs_drafter else 0.0,
        score_when_accepted=plan.proposer == "drafter",
        verify=verify,
        verify_per_token=_SHARE_PER_TOKEN * verify,
    )
    # A seeded sample must not depend on a clock. Greedy output depends on the draft length in no case.
    measure = sampling.greedy or sampling.seed is None
    return AdaptiveDraftLength(plan.max_draft_length, costs, measure=measure)


def _step_bytes(sequence: Sequence) -> float:
    """Return roughly what a one-token step reads: the weights and the cache."""
    held = sequence.cache.length / sequence.cache.capacity
    return sequence.model.weight_bytes + sequence.cache.nbytes * held
