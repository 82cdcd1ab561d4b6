"""The contract between the decoding loop and whatever guesses ahead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from rapid_integrations.sampling import Constraint, Law, Penalties, Randomness


@dataclass(frozen=True)
class Proposal:
    """A chain of guessed tokens.

    Attributes:
        token_ids: K tokens; K may be 0.
        probs: K times (V,), the distribution that each token was really drawn from; None when each was certain to be
            proposed (a point mass).
        source: the registered name of the proposer that guessed; for those who look on, decoding does not ask.
    """

    token_ids: tuple[int, ...]
    probs: Sequence[Tensor] | None = None
    source: str = ""


class Scorer(Protocol):
    """Says how likely the drafter finds a proposal; the q in p_hat."""

    def logits(self, draft: Sequence[int], position: int) -> Tensor:
        """Return the drafter's logits (V,) after the first `position` tokens of `draft`, 0 <= position <= K."""
        ...

    def commit(self, token_ids: Sequence[int]) -> None:
        """Make `token_ids` part of the text and forget the rest of the draft."""
        ...


class Proposer(Protocol):
    """Guesses the next tokens.

    A proposer may draw from any distribution it likes, as long as `Proposal.probs` reports it. It may stop early only
    before a token is drawn: to discard a drawn token would bias the output.
    """

    def propose(self, max_tokens: int, rng: Randomness) -> Proposal:
        """Return at most `max_tokens` tokens that may follow the committed text."""
        ...

    def commit(self, token_ids: Sequence[int]) -> None:
        """Make `token_ids` part of the text and forget the rest of the proposal."""
        ...


@dataclass(frozen=True)
class ProposerRequest:
    """What a proposer can be made from.

    Attributes:
        target_ids: the target's prompt.
        drafter_ids: the drafter's prompt (compressed context).
        scorer: the drafter, if the request has one.
        law: what the output follows.
        penalty: the request's penalties; the loop keeps them up to date.
        eos_token_ids: what ends an answer.
        constraint: what the output may look like; the loop keeps it up to date. A guess that it forbids is wasted.
        draft_lm: a language model that proposes only, if the request has one.
    """

    target_ids: Sequence[int]
    drafter_ids: Sequence[int]
    scorer: Scorer | None
    law: Law
    penalty: Penalties
    eos_token_ids: frozenset[int]
    constraint: Constraint | None = None
    draft_lm: Proposer | None = None


def parts_of(proposer: Proposer) -> tuple[Proposer, ...]:
    """Return the proposers that a proposer consists of: those within it, or itself."""
    parts: tuple[Proposer, ...] = getattr(proposer, "parts", (proposer,))
    return parts


class NoProposer:
    """Proposes nothing: one token per forward pass."""

    @classmethod
    def from_request(cls, request: ProposerRequest) -> NoProposer:
        """Return a new one; nothing of the request is needed."""
        return cls()

    def propose(self, max_tokens: int, rng: Randomness) -> Proposal:
        """Return an empty proposal."""
        return Proposal(())

    def commit(self, token_ids: Sequence[int]) -> None:
        """Nothing to keep."""
