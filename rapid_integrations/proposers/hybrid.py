"""Copy where the text repeats, draft with a language model where it does not.

A copied proposal costs nothing to make and a drafted one is right more often. Which of the two a round uses follows
from the committed text and from what earlier rounds cost, never from a token that was drawn, so the law is not touched.
"""

from __future__ import annotations

from collections.abc import Sequence

from rapid_integrations.decoding.draft_length import DraftLength, RoundTimes
from rapid_integrations.decoding.drafter import Drafter
from rapid_integrations.decoding.proposal import Committed, Proposal, Proposer, ProposerRequest
from rapid_integrations.proposers.prompt_lookup import PromptLookup
from rapid_integrations.sampling import Randomness

MIN_COPIED_NGRAM = 3  # two tokens are often followed by something else, and a language model knows better


class Hybrid(Proposer):
    """Proposes what prompt lookup finds behind a long enough n-gram, else what the language model drafts.

    Copies and drafts have a draft length of their own each: they differ in what they cost and in how often they are
    right. A round teaches the one that it used.

    Args:
        lookup: finds copies and chooses their length.
        model: writes drafts.
        source: the name of whoever writes them.
        drafts: chooses their length.
    """

    def __init__(self, lookup: PromptLookup, model: Drafter, source: str, drafts: DraftLength) -> None:
        self._lookup = lookup
        self._model, self._source = model, source
        self._drafts = drafts
        self._copied = False  # in the present round

    @classmethod
    def from_request(cls, request: ProposerRequest) -> Hybrid:
        """Copy as prompt lookup does; draft with the request's draft model, else with its drafter."""
        lookup = PromptLookup.from_request(request, MIN_COPIED_NGRAM)
        model, source = (request.draft_lm, "draft_lm") if request.draft_lm else (request.drafter, "drafter")
        assert model is not None, "the plan opens a model for this proposer"
        return cls(lookup, model, source, request.lengths.of_drafts())

    def propose(self, limit: int, rng: Randomness) -> Proposal:
        """Copy, if the text repeats and copies pay; else draft."""
        copied = self._lookup.propose(limit, rng)
        self._copied = bool(copied.token_ids)
        return copied if self._copied else self._model.draft(min(self._drafts.next(), limit), rng, self._source)

    def observe(self, times: RoundTimes) -> None:
        """Learn from a round for the kind that it was of."""
        if self._copied:
            self._lookup.observe(times)
        else:
            self._drafts.observe(times)

    @property
    def parts(self) -> tuple[Committed, ...]:
        """Both: each keeps up with the text."""
        return (self._lookup, self._model)

    def commit(self, token_ids: Sequence[int]) -> None:
        """Tell both."""
        self._lookup.commit(token_ids)
        self._model.commit(token_ids)
