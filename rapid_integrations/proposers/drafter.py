"""The paper's proposer: a language model reads the compressed context and drafts token by token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from rapid_integrations.decoding.draft_length import DraftLength, RoundTimes
from rapid_integrations.decoding.drafter import Drafter
from rapid_integrations.decoding.passes import Steps
from rapid_integrations.decoding.proposal import Committed, Proposal, Proposer, ProposerRequest
from rapid_integrations.sampling import Randomness


class DrafterProposer(Proposer):
    """Lets the request's drafter write. The drafter scores with the same cache, so scoring its own drafts is free.

    Args:
        model: writes the drafts.
        length: chooses K.
    """

    source: ClassVar[str] = "drafter"

    def __init__(self, model: Drafter, length: DraftLength) -> None:
        self._model = model
        self._length = length

    @classmethod
    def from_request(cls, request: ProposerRequest) -> Self:
        """Return a proposer over the request's drafter."""
        assert request.drafter is not None, "the plan opens a drafter for this proposer"
        return cls(request.drafter, request.lengths.of_drafts())

    def propose(self, limit: int, rng: Randomness) -> Steps[Proposal]:
        """Draft as many tokens as pay, up to `limit`."""
        return (yield from self._model.draft(min(self._length.next(), limit), rng, self.source))

    def observe(self, times: RoundTimes) -> None:
        """Learn how many tokens pay."""
        self._length.observe(times)

    @property
    def parts(self) -> tuple[Committed, ...]:
        """The model, which may also be the request's scorer."""
        return (self._model,)

    def commit(self, token_ids: Sequence[int]) -> None:
        """Report the tokens to the model."""
        self._model.commit(token_ids)


class DraftLMProposer(DrafterProposer):
    """Lets another model with the drafter's prompt write; the drafter scores its proposal in one pass.

    This makes a large drafter affordable: it reads K tokens at once instead of writing them one by one.
    """

    source: ClassVar[str] = "draft_lm"

    @classmethod
    def from_request(cls, request: ProposerRequest) -> Self:
        """Return a proposer over the request's draft model."""
        assert request.draft_lm is not None, "the plan opens a draft model for this proposer"
        return cls(request.draft_lm, request.lengths.of_drafts())
