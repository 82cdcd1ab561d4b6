"""Checking a proposer: every outcome of small requests, with it and without it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from rapid_integrations.decoding.draft_length import RoundTimes
from rapid_integrations.decoding.draft_lengths import DraftLengths
from rapid_integrations.decoding.drafter import Drafter
from rapid_integrations.decoding.loop import decode
from rapid_integrations.decoding.passes import Steps, run_alone
from rapid_integrations.decoding.proposal import MOST_TOKENS, Committed, NoProposer, Proposal, Proposer, ProposerRequest
from rapid_integrations.decoding.reader import Reader
from rapid_integrations.decoding.recorder import Recorder
from rapid_integrations.decoding.rules import Rules
from rapid_integrations.decoding.stopping import Stopping
from rapid_integrations.decoding.text_stream import TextStream
from rapid_integrations.proposers import proposer_class
from rapid_integrations.proposers.heads.drafting import HeadDrafter
from rapid_integrations.proposers.heads.head import DraftHead
from rapid_integrations.proposers.suite.every_outcome import EnumeratedRandomness, enumerate_outcomes
from rapid_integrations.proposers.suite.table_model import TableLM
from rapid_integrations.sampling import Law, Penalties, Randomness
from rapid_integrations.sampling.trees import path_to

TOLERANCE = 1e-6
_V = 3
_TARGET_PROMPT = (0, 1, 0, 0, 1, 2, 0, 1)  # it repeats itself, so that there is something to copy
_DRAFTER_PROMPT = (2, 0, 1)

_MODELLED = DraftLengths.adaptive(
    3, verify=5e7, score=0.0, write=5e6, scores_own_drafts=False, together=False, measure=False, row_share=0.2
)

LAWS = (
    Law("target", temperature=1.0),
    Law("target", temperature=0.7, top_p=0.8),
    Law("augmented", temperature=1.0, eta=5.0),
    Law("augmented", temperature=0.0, eta=5.0),
)


def check_proposer(
    proposer: str | type,
    *,
    new_tokens: int = 4,
    draft_lengths: tuple[int | Literal["auto"], ...] = (1, 2, 3),
    draft_head: Callable[[TableLM], DraftHead] | None = None,
) -> None:
    """Raise an error unless the output follows the law with this proposer.

    Two small models answer a short prompt. Every outcome of every random decision is walked, with its probability, so
    nothing is left to chance. The distribution of the answers has to be the one without any proposer. The proposer must
    depend on nothing but its request and `rng`.

    Args:
        proposer: a registered name, or the class, which has `from_request`.
        new_tokens: of each answer. A further one multiplies the time.
        draft_lengths: draft lengths to check it with; "auto" lets acceptance and modelled costs choose.
        draft_head: makes a trained head for the target, if the proposer needs one.

    Raises:
        AssertionError: the output has another distribution, or the proposer breaks its contract: it proposes more
            tokens than are wanted, or tokens that are none. The message says for which law and draft length.
    """
    found: Any = proposer_class(proposer) if isinstance(proposer, str) else proposer
    for law in LAWS:
        expected = enumerate_outcomes(_Request(law, NoProposer, new_tokens, 1).answer)
        for length in draft_lengths:
            outcomes = enumerate_outcomes(_Request(law, found, new_tokens, length, draft_head).answer)
            off = max(abs(outcomes.get(each, 0.0) - expected.get(each, 0.0)) for each in {*outcomes, *expected})
            if off > TOLERANCE:
                raise AssertionError(
                    f"with draft length {length}, the answers of {law.kind!r} at temperature {law.temperature} do not "
                    f"follow the law: a probability is wrong by {off:.2g}. Tokens that are drawn must be drawn with "
                    "`rng`, never be discarded, and have their distributions reported in `probs`"
                )


@dataclass
class _Request:
    law: Law
    proposer: Any
    new_tokens: int
    length: int | Literal["auto"]
    make_head: Callable[[TableLM], DraftHead] | None = None
    target: TableLM = field(default_factory=lambda: TableLM(1, _V))
    drafter: TableLM = field(default_factory=lambda: TableLM(2, _V))
    draft_lm: TableLM = field(default_factory=lambda: TableLM(3, _V))

    def answer(self, rng: EnumeratedRandomness) -> tuple[int, ...]:
        """Decode with the engine's own parts; return the answer."""
        rules = Rules(self.law, _V, Penalties(1.0, _TARGET_PROMPT, _V))
        target = Reader(self.target, _TARGET_PROMPT, len(_TARGET_PROMPT) + self.new_tokens + MOST_TOKENS)
        head = None if self.make_head is None else HeadDrafter(self.make_head(self.target), target, rules)
        run_alone(target.prefill())
        drafter, draft_lm = (
            Drafter(self._reader(model, _DRAFTER_PROMPT), rules) for model in (self.drafter, self.draft_lm)
        )
        lengths = _MODELLED if self.length == "auto" else DraftLengths.fixed(self.length)
        prompts = _TARGET_PROMPT, _DRAFTER_PROMPT
        request = ProposerRequest(*prompts, rules, lengths, drafter, draft_lm, draft_head=head, target=target)
        tokens: list[int] = []
        run_alone(
            decode(
                target=target,
                proposer=_Watched(self.proposer.from_request(request)),
                scorer=drafter if self.law.needs_drafter else None,
                rules=rules,
                stopping=Stopping(frozenset(), self.new_tokens, TextStream(lambda ids: "x" * len(ids), ())),
                rng=_as_randomness(rng),
                recorder=Recorder(self.target.device),
                emit=lambda taken: tokens.extend(taken.token_ids),
            )
        )
        if target.tokens != [*_TARGET_PROMPT, *tokens] or target.cache.length != len(target.tokens) - 1:
            raise AssertionError("the target's cache does not hold the answer: a proposer must leave it alone")
        return tuple(tokens)

    def _reader(self, model: TableLM, prompt: tuple[int, ...]) -> Reader:
        reader = Reader(model, prompt, len(prompt) + self.new_tokens)
        run_alone(reader.prefill())
        return reader


class _Watched(Proposer):
    """Checks what a proposer proposes."""

    def __init__(self, proposer: Proposer) -> None:
        self._proposer = proposer

    def propose(self, limit: int, rng: Randomness) -> Steps[Proposal]:
        proposal = self._proposer.propose(limit, rng)
        if not isinstance(proposal, Proposal):
            proposal = yield from proposal
        tokens, parents = proposal.token_ids, proposal.parents
        longest = len(tokens)
        if parents is not None:
            longest = max((len(path_to(parents, each)) for each in range(len(tokens))), default=0)
        if longest > limit:
            raise AssertionError(f"{longest} tokens in a row were proposed, and {limit} are wanted at most")
        if not all(isinstance(token, int) and 0 <= token < _V for token in tokens):
            raise AssertionError(f"{tokens} are not all tokens: they are whole numbers from 0 to {_V - 1} here")
        if proposal.probs is not None and len(proposal.probs) != len(tokens):
            raise AssertionError(f"{len(proposal.probs)} distributions were reported for {len(tokens)} tokens")
        return proposal

    def observe(self, times: RoundTimes) -> None:
        self._proposer.observe(times)

    @property
    def parts(self) -> tuple[Committed, ...]:
        return self._proposer.parts

    def commit(self, token_ids: Any) -> None:
        self._proposer.commit(token_ids)


def _as_randomness(rng: EnumeratedRandomness) -> Any:
    """The loop asks for `accept` and `draw` alone, which this has, too."""
    return rng
