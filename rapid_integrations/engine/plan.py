"""The plan of a request: its law, its proposer and its draft length, decided from the settings."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rapid_integrations.cache.datastore import open_datastore
from rapid_integrations.cache.stored_answers import StoredAnswers, stored_answers
from rapid_integrations.cache.suffix_index import SuffixIndex
from rapid_integrations.compression import trust_of
from rapid_integrations.config import PAPER_DRAFT_LENGTH, Eta, SamplingParams, SpeculationConfig
from rapid_integrations.decoding.draft_length import SHARE_ON_PROCESSORS, SHARE_PER_TOKEN
from rapid_integrations.decoding.draft_lengths import DraftLengths
from rapid_integrations.decoding.elsewhere import ModelElsewhere
from rapid_integrations.decoding.proposal import SelfDrafting
from rapid_integrations.decoding.reader import Reader
from rapid_integrations.decoding.row_share import RowShares
from rapid_integrations.engine.loaded_models import EngineModels
from rapid_integrations.engine.prepared_prompt import PreparedPrompt
from rapid_integrations.errors import ConfigurationError
from rapid_integrations.kernels.ops import ops_for
from rapid_integrations.models.causal_lm import CausalLM, HasParts, MovesKeys
from rapid_integrations.proposers import proposer_class
from rapid_integrations.sampling import Law

# The paper's values, for its own law. Under the other laws, eta adapts to both distributions (see docs/results).
PAPER_ETA_SAME_SIZE = 10.0
PAPER_ETA_LARGER_DRAFTER = 40.0
# Each with its part that runs no model.
_HYBRIDS = {"hybrid": "prompt_lookup", "tree_hybrid": "retrieval_tree", "adaptive": "retrieval_tree"}
_HEADS = ("draft_head", "draft_head_tree")
_SPARSE = ("magicdec", "triforce")
_SELF_DRAFTING = ("skipped_layers", *_SPARSE)
_WITHOUT_PARTS = "prompt_lookup"  # proposes in their place if the target has no parts; it runs no model either


@dataclass(frozen=True)
class Plan:
    """A request's law, proposer and draft length, with every default decided.

    Attributes:
        law, proposer, draft_length, max_draft_length: see `SpeculationConfig`.
        draft_lm: whether there is a model that only proposes.
        takes_rows: whether the drafter takes the target's rows of the retrieved chunks.
        views_rows: whether it reads them in place.
        datastore: the index of the user's own texts, or None.
        draft_head: whether there is a trained head.
        self_drafting: how the target drafts for itself.
        doubt: the share of the distrust in what was retrieved that is left, in (0, 1]: the target's share of the
            drafter's parameters, at most 1. Who contradicts a target that is sure may know better if it is larger.
        weights: of several drafters' distributions, which sum to 1; empty if there is one drafter.
        answers: what the datastore has gained, and gains from this request; None if it does not grow.
    """

    law: Law
    proposer: str
    draft_length: int | Literal["auto"]
    max_draft_length: int
    draft_lm: bool = False
    takes_rows: bool = False
    views_rows: bool = False
    datastore: SuffixIndex | None = None
    draft_head: bool = False
    self_drafting: SelfDrafting = SelfDrafting()
    doubt: float = 1.0
    weights: tuple[float, ...] = ()
    answers: StoredAnswers | None = None

    @property
    def uses_drafter(self) -> bool:
        """Whether the request needs a drafter."""
        drafts = self.proposer == "drafter" or (self.proposer in _HYBRIDS and not (self.draft_lm or self.draft_head))
        return self.law.needs_drafter or drafts

    @property
    def uses_draft_lm(self) -> bool:
        """Whether the request needs the model that only proposes."""
        only_model = self.draft_lm and not self.draft_head
        helps = self.proposer == "triforce" and self.draft_lm
        return self.proposer == "draft_lm" or helps or (self.proposer in _HYBRIDS and only_model)

    @property
    def retrieves(self) -> bool:
        """Whether passages are needed: for another prompt than the target's, or to choose rows of the target."""
        over_passages = self.proposer in _SPARSE and self.self_drafting.retrieved
        return self.uses_drafter or self.uses_draft_lm or over_passages

    @property
    def uses_draft_head(self) -> bool:
        """Whether a trained head proposes."""
        return self.draft_head and (self.proposer in _HEADS or self.proposer in _HYBRIDS)

    def for_prompts(self, prompts: PreparedPrompt, self_speculation: bool) -> Plan:
        """Add the trust in retrieval and its relevance to the law, and drop a drafter that is useless.

        If the drafter is the target and reads the same tokens, p_hat is p, and drafts save nothing. A draft length
        that the request sets is used all the same (naive speculative decoding, for comparison).
        """
        if not self_speculation or prompts.drafter_ids != prompts.target_ids:
            # If nothing was left out, retrieval has missed nothing.
            trust = 1.0 if prompts.query_coverage is None else trust_of(prompts.query_coverage)
            # Passages that contain everything the question names are relevant, even with a low similarity to it.
            relevance = trust if prompts.compression is None else max(prompts.compression.relevance, trust)
            return replace(self, law=replace(self.law, relevance=relevance, trust=1.0 - self.doubt * (1.0 - trust)))
        proposer = self.proposer
        if self.draft_length == "auto" and not (self.uses_draft_lm or self.uses_draft_head):
            proposer = {"drafter": "none", **_HYBRIDS}.get(proposer, proposer)
        kind = "target" if self.law.needs_drafter else self.law.kind
        return replace(self, law=replace(self.law, kind=kind), proposer=proposer)


def _hybrid_for(models: EngineModels) -> str:
    """Return "tree_hybrid" if models of this process read trees on a processor, else "hybrid".

    Rounds of chains are decided on a GPU with one wait, those of trees by the host (`decoding/device_rounds.py`).
    """
    if isinstance(models.drafter, ModelElsewhere):
        return "hybrid"
    readers = (models.target, models.drafter, *models.more_drafters)
    trees = all(each.device.type == "cpu" and each.reads_trees for each in readers)
    return "tree_hybrid" if trees else "hybrid"


def _doubt(models: EngineModels) -> float:
    """Return `Plan.doubt`; 1 for a drafter of unknown size, and that of the smallest if there are several."""
    sizes = [each.num_parameters for each in (models.drafter, *models.more_drafters)]
    smallest = min(sizes)
    return 1.0 if smallest >= sys.maxsize else min(1.0, models.target.num_parameters / max(1, smallest))


def plan_request(speculation: SpeculationConfig, sampling: SamplingParams, models: EngineModels) -> Plan:
    """Decide every default of a request.

    Raises:
        ConfigurationError: the proposer is unknown, the law does not allow it, or the datastore cannot be used.
    """
    larger = models.drafter.num_parameters > models.target.num_parameters
    smaller = models.drafter.num_parameters < models.target.num_parameters
    kind = ("target" if smaller else "augmented") if speculation.law == "auto" else speculation.law
    proposer = speculation.proposer
    if proposer == "auto":
        proposer = "drafter" if kind == "paper" else _hybrid_for(models)
    proposer_class(proposer)  # refuses an unknown name
    if kind == "paper" and proposer != "drafter":
        raise ConfigurationError(
            f"law='paper' with proposer={proposer!r}: the published residual is defined for drafts of "
            "the drafter only. Use proposer='drafter', or law='augmented', which takes any proposer"
        )
    default_eta: Eta = "auto"
    if kind == "paper":
        default_eta = PAPER_ETA_LARGER_DRAFTER if larger else PAPER_ETA_SAME_SIZE
    law = Law(
        kind=kind,
        temperature=sampling.temperature,
        eta=default_eta if speculation.eta is None else speculation.eta,
        tail_rule=speculation.tail_rule,
        tail_alpha=speculation.tail_alpha,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        min_p=sampling.min_p,
        leniency=speculation.leniency,
        ops=ops_for(*(model.device for model in models.all)),
    )
    if proposer == "draft_lm" and models.draft_lm is None:
        raise ConfigurationError(
            "proposer='draft_lm' needs a model that proposes: give the engine draft_lm=... (a small model with the "
            "same tokenizer, or the target's own name), or use proposer='drafter'"
        )
    if proposer in _HEADS and models.draft_head is None:
        raise ConfigurationError(
            f"proposer={proposer!r} needs a trained head: give the engine draft_head=FOLDER (docs/heads.md), or use "
            "another proposer"
        )
    if proposer in _SELF_DRAFTING and not (isinstance(models.target, HasParts) and models.target.has_parts):
        proposer = _WITHOUT_PARTS
    if proposer in _SPARSE and not _is_viewed(models.target):  # rows before a gap are freed where windows hide them
        proposer = _WITHOUT_PARTS
    chunks = speculation.chunk_cache
    takes_rows = chunks == "target"
    if takes_rows and not (
        models.self_speculation and isinstance(models.target, MovesKeys) and models.target.moves_keys
    ):
        raise ConfigurationError(
            f"chunk_cache='target' takes the target's keys and values, but the drafter {models.drafter.name} is "
            "another model, or its keys cannot be moved, or are freed behind sliding windows. Leave out the "
            "drafter, or use chunk_cache='off'",
            code="other_rows",
        )
    if chunks == "view" and not (models.self_speculation and _is_viewed(models.target)):
        raise ConfigurationError(
            f"chunk_cache='view' reads the target's keys and values in place, but the drafter {models.drafter.name} is "
            "another model, or it has sliding windows, a recurrent state or another library's attention. Leave out the "
            "drafter, or use chunk_cache='off'",
            code="other_rows",
        )
    if proposer == "datastore" and speculation.datastore is None:
        raise ConfigurationError(
            "proposer='datastore' needs an index of your texts: make one with rapid datastore build FILES -o index, "
            "and give datastore='index'"
        )
    datastore, answers = None, None
    if speculation.datastore is not None:
        path, vocabulary = Path(speculation.datastore), models.vocabulary
        datastore = open_datastore(path, vocabulary.digest, models.vocab_size)
        if speculation.datastore_grows:
            answers = stored_answers(path, vocabulary.digest, models.vocab_size, min(vocabulary.eos_token_ids))
    elif speculation.datastore_grows:
        raise ConfigurationError(
            "datastore_grows=True needs a datastore to grow: make one with rapid datastore build FILES -o index, and "
            "give datastore='index'"
        )
    return Plan(
        law,
        proposer,
        speculation.draft_length,
        speculation.max_draft_length,
        draft_lm=models.draft_lm is not None,
        takes_rows=takes_rows or chunks == "view",
        views_rows=chunks == "view",
        datastore=datastore,
        draft_head=models.draft_head is not None,
        self_drafting=_self_drafting(speculation, models.target),
        doubt=_doubt(models),
        weights=_weights(speculation, models),
        answers=answers,
    )


def _is_viewed(model: CausalLM) -> bool:
    """Whether a model reads behind rows of a cache that has gaps: as its parts do, and with every key in sight."""
    return isinstance(model, HasParts) and model.has_parts and getattr(model.part(), "sees_all_rows", False)


def _weights(speculation: SpeculationConfig, models: EngineModels) -> tuple[float, ...]:
    """Return the weights of several drafters, which sum to 1.

    Raises:
        ConfigurationError: as many are not given as there are drafters.
    """
    drafters, given = 1 + len(models.more_drafters), speculation.drafter_weights
    if given is not None and len(given) != drafters:
        raise ConfigurationError(
            f"drafter_weights={given} are {len(given)} weights, and the engine has {drafters} drafters: give one for "
            "each, that of the drafter first, or leave them out",
            code="wrong_value",
        )
    if drafters == 1:
        return ()
    given = given or (1.0,) * drafters
    return tuple(each / sum(given) for each in given)


def _self_drafting(speculation: SpeculationConfig, target: CausalLM) -> SelfDrafting:
    """Return how the target drafts for itself.

    Raises:
        ConfigurationError: it has no such layers, or none would be left.
    """
    skipped = None if speculation.draft_skip_layers is None else frozenset(speculation.draft_skip_layers)
    if skipped is not None and isinstance(target, HasParts):
        layers = target.num_layers
        if max(skipped, default=0) >= layers or len(skipped) >= layers:
            raise ConfigurationError(
                f"draft_skip_layers={speculation.draft_skip_layers}: {target.name} has the layers 0 to {layers - 1}, "
                "and at least one of them has to be left. Leave draft_skip_layers out to have them chosen",
                code="wrong_value",
            )
    return SelfDrafting(skipped, speculation.draft_sinks, speculation.draft_recent, speculation.draft_retrieved)


def draft_lengths(
    plan: Plan,
    sampling: SamplingParams,
    target: Reader,
    drafter: float | None,
    draft_lm: float | None,
    *,
    together: bool,
    shares: RowShares,
) -> DraftLengths:
    """Return the factory of draft-length choosers for a request whose prompts are prefilled.

    Args:
        plan, sampling: of the request.
        target: its reader.
        drafter, draft_lm: bytes that a step of one token reads of them (`step_bytes`); None without one.
        together: target and drafter read each draft in one pass.
        shares: what rows have taken in the engine's other requests.
    """
    if plan.draft_length != "auto":
        return DraftLengths.fixed(plan.draft_length)
    if plan.law.kind == "paper":  # the output depends on the draft length, so that must not depend on timing
        return DraftLengths.fixed(PAPER_DRAFT_LENGTH)
    writer = draft_lm or drafter
    scoring = drafter if drafter is not None and plan.law.needs_drafter else 0.0
    verifying = step_bytes(target.model, target.cache.length)
    if together:  # the weights are read once for both
        verifying += scoring - target.model.weight_bytes
    return DraftLengths.adaptive(
        plan.max_draft_length,
        verify=verifying,
        score=scoring,
        write=writer or 0.0,
        scores_own_drafts=draft_lm is None,
        together=together,
        # A seeded sample must not depend on a clock. Greedy output never depends on the draft length.
        # The law "lenient" does depend on it, so it is the same each time.
        measure=(sampling.greedy or sampling.seed is None) and plan.law.kind != "lenient",
        row_share=SHARE_ON_PROCESSORS if target.model.device.type == "cpu" else SHARE_PER_TOKEN,
        shares=shares,
    )


def step_bytes(model: CausalLM, cached_tokens: int) -> float:
    """Return roughly how many bytes a one-token step reads: the weights and the filled part of the cache."""
    return float(model.weight_bytes + model.kv_bytes_per_token * cached_tokens)
