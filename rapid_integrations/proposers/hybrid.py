"""Copy where the text repeats, draft with a language model where it does not.

A copied proposal costs nothing to make and a drafted one is right more often. Which of the two a round uses follows
from the committed text alone (whether it ends in an n-gram that occurred before), so the law is not touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from rapid_integrations.decoding.draft_length import AdaptiveDraftLength, RoundCosts
from rapid_integrations.decoding.proposal import Proposal, Proposer, ProposerRequest
from rapid_integrations.proposers.prompt_lookup import PromptLookup
from rapid_integrations.sampling import Randomness

MIN_COPIED_NGRAM = 3  # two tokens are often followed by something else, and a language model knows better


class Hybrid:
    """Proposes what prompt lookup finds behind a long enough n-gram, else what the language model drafts.

    Attributes:
        copying: whether the coming round may copy; a draft length may switch it off.
        parts: the proposers within, which each keep up with the text.
    """

    def __init__(self, lookup: PromptLookup, model: Proposer) -> None:
        self._lookup = lookup
        self._model = model
        self.copying = True
        self.parts: tuple[Proposer, ...] = (lookup, model)

    @classmethod
    def from_request(cls, request: ProposerRequest) -> Hybrid:
        """Copy as prompt lookup does; draft with the request's draft model, else with its drafter."""
        model = request.draft_lm or cast(Proposer, request.scorer)
        sources = (request.drafter_ids, request.target_ids)
        lookup = PromptLookup(sources, request.target_ids, request.eos_token_ids, min_ngram=MIN_COPIED_NGRAM)
        return cls(lookup, model)

    def finds_copy(self) -> bool:
        """Whether the text ends in something that occurred before."""
        return bool(self._lookup.find(1))

    def propose(self, max_tokens: int, rng: Randomness) -> Proposal:
        """Copy at most `max_tokens` tokens, or draft them."""
        if self.copying and (copied := self._lookup.find(max_tokens)):
            return Proposal(copied, source="prompt_lookup")
        return self._model.propose(max_tokens, rng)

    def commit(self, token_ids: Sequence[int]) -> None:
        """Tell both parts."""
        for part in self.parts:
            part.commit(token_ids)


class HybridDraftLength:
    """Chooses K for copies and for drafts apart: they differ in what they cost and in how often they are right.

    Args:
        proposer: what it chooses for.
        copied, drafted: learn from the rounds of their kind.
    """

    def __init__(self, proposer: Hybrid, copied: AdaptiveDraftLength, drafted: AdaptiveDraftLength) -> None:
        self._proposer = proposer
        self._copied, self._drafted = copied, drafted
        self._now = drafted

    def next(self) -> int:
        """Return the draft length of the coming round; where copies do not pay, the model drafts."""
        self._proposer.copying = self._proposer.finds_copy()
        if self._proposer.copying and (length := self._copied.next()) > 0:
            self._now = self._copied
            return length
        self._proposer.copying = False
        self._now = self._drafted
        return self._drafted.next()

    def observe(self, costs: RoundCosts) -> None:
        """Pass on to whom the round belongs."""
        self._now.observe(costs)
