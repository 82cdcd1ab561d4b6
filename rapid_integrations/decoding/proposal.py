"""The protocols between the decoding loop and proposers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from torch import Tensor

from rapid_integrations.cache import Rows
from rapid_integrations.decoding.draft_length import DraftLengths, RoundTimes
from rapid_integrations.decoding.passes import Steps
from rapid_integrations.decoding.reader import Reader
from rapid_integrations.decoding.rules import Rules
from rapid_integrations.sampling import Randomness

if TYPE_CHECKING:
    from rapid_integrations.decoding.drafter import Drafter


@dataclass(frozen=True)
class Proposal:
    """A chain of guessed tokens.

    Attributes:
        token_ids: K tokens; K may be 0.
        probs: K times (V,), the distribution that each token was really drawn from. None means point masses: the
            proposer was certain to propose these tokens.
        source: the registered name of the proposer. Only observers read it.
    """

    token_ids: tuple[int, ...]
    probs: Sequence[Tensor] | None = None
    source: str = ""


class Committed(Protocol):
    """Follows the committed text. The loop reports its output to it."""

    def commit(self, token_ids: Sequence[int]) -> None:
        """Make `token_ids` part of the text and discard the rest of the draft."""
        ...


class Scorer(Committed, Protocol):
    """Says how likely the drafter finds a proposal; the q in p_hat.

    Attributes:
        reader: the model and its own prompt. If the model is the target's, both read a draft in one pass.
        elsewhere: whether another process reads. There is no reader then.
        lost: whether that process is lost. The law is "target" from then on.
    """

    reader: Reader
    elsewhere: ClassVar[bool]
    lost: bool

    def begin(self, draft: Sequence[int]) -> None:
        """Start to read `draft` in another process, beside the target's pass; `score` waits for it."""
        ...

    def scores(self, positions: int) -> bool:
        """Whether the logits are known before the draft and after each of its first `positions` tokens."""
        ...

    def score(self, draft: Sequence[int]) -> Steps[None]:
        """Read what is still needed to know the logits at all positions of `draft`."""
        ...

    def wants(self, draft: Sequence[int]) -> Rows | None:
        """Return what the drafter has to read to score all of `draft`, for a pass that it shares; None: nothing."""
        ...

    def scored(self, logits: Tensor) -> None:
        """Take the logits that `wants` asked for."""
        ...

    def logits(self, position: int) -> Tensor:
        """Return the drafter's logits (V,) after the first `position` draft tokens, which have been scored."""
        ...


class Proposer(Committed, Protocol):
    """Proposes the next tokens and chooses how many. Subclass it: two members have a default.

    A proposer may draw from any distribution, as long as `Proposal.probs` reports it. It may stop early only before a
    token is drawn, because discarding a drawn token would bias the output.
    """

    def propose(self, limit: int, rng: Randomness) -> Proposal | Steps[Proposal]:
        """Return at most `limit` tokens that may follow the committed text; `limit` may be 0.

        A proposer that runs a model is a generator here: it yields the rows that it wants, and returns the proposal.
        """
        ...

    def observe(self, times: RoundTimes) -> None:
        """Learn from a finished round how many tokens pay. By default this does nothing."""

    @property
    def parts(self) -> tuple[Committed, ...]:
        """The parts that follow the committed text on its behalf; by default the proposer itself.

        A part may also be the request's scorer. It is then told only once.
        """
        return (self,)


@dataclass(frozen=True)
class ProposerRequest:
    """The inputs that a proposer can be made from.

    Attributes:
        target_ids: the target's prompt.
        drafter_ids: the drafter's prompt (compressed context).
        rules: the rules of the output. A proposal that breaks them is wasted.
        lengths: makes the choosers of K.
        drafter: the drafter, if the request has one.
        draft_lm: a language model that proposes only, if the request has one.
    """

    target_ids: Sequence[int]
    drafter_ids: Sequence[int]
    rules: Rules
    lengths: DraftLengths
    drafter: Drafter | None = None
    draft_lm: Drafter | None = None


class NoProposer(Proposer):
    """Proposes nothing: one token per forward pass."""

    @classmethod
    def from_request(cls, request: ProposerRequest) -> NoProposer:
        """Return a new proposer. It needs nothing of the request."""
        return cls()

    def propose(self, limit: int, rng: Randomness) -> Proposal:
        """Return an empty proposal."""
        return Proposal(())

    def commit(self, token_ids: Sequence[int]) -> None:
        """Do nothing."""
