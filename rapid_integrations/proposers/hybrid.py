"""A proposer that copies if the text repeats, and otherwise drafts with a language model.

A copied proposal costs nothing, and a drafted one is right more often. The choice for a round depends on the committed
text and on the costs of earlier rounds, never on a token that was drawn. So the law is unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from rapid_integrations.decoding.draft_length import OTHERS, DraftLength, RoundTimes
from rapid_integrations.decoding.drafter import Drafter
from rapid_integrations.decoding.passes import Steps
from rapid_integrations.decoding.proposal import Committed, HeadWriter, Proposal, Proposer, ProposerRequest
from rapid_integrations.proposers.prompt_lookup import PromptLookup
from rapid_integrations.proposers.retrieval_tree import RetrievalTree
from rapid_integrations.sampling import Randomness

MIN_COPIED_NGRAM = 3  # two tokens are often followed by something else, and a language model knows better


class Hybrid(Proposer):
    """Proposes what a search of the texts finds, or else what the language model drafts.

    Copies and drafts each have their own draft length, because they differ in cost and in acceptance. A round teaches
    the one that it used.

    Args:
        lookup: finds copies and chooses how many; it runs no model.
        model: writes drafts.
        source: the registered name of the draft writer.
        drafts: chooses the length of drafts.
    """

    def __init__(
        self,
        lookup: PromptLookup | RetrievalTree,
        model: Drafter | HeadWriter,
        source: str,
        drafts: DraftLength,
    ) -> None:
        self._lookup = lookup
        self._model, self._source = model, source
        self._drafts = drafts
        self._copied = False  # whether the current round copies

    @classmethod
    def from_request(cls, request: ProposerRequest) -> Self:
        """Return a proposer over a search of the texts and the request's head, draft model or drafter."""
        lookup = cls.search(request)
        if (head := request.draft_head) is not None:
            return cls(lookup, head, "draft_head", request.lengths.of_writer(head.step_bytes))
        model, source = (request.draft_lm, "draft_lm") if request.draft_lm else (request.drafter, "drafter")
        assert model is not None, "the plan opens a model for this proposer"
        return cls(lookup, model, source, request.lengths.of_drafts())

    @classmethod
    def search(cls, request: ProposerRequest) -> PromptLookup | RetrievalTree:
        """Return what looks for copies."""
        return PromptLookup.from_request(request, MIN_COPIED_NGRAM)

    def propose(self, limit: int, rng: Randomness) -> Steps[Proposal]:
        """Copy if the text repeats and copies pay, otherwise draft."""
        drafts = min(self._drafts.next(), limit)
        copied = self._lookup.propose(limit, rng)
        self._copied = bool(copied.token_ids) and not (drafts and self._drafts_are_better())
        if self._copied:
            return copied
        return (yield from self._model.draft(drafts, rng, self._source))

    def _drafts_are_better(self) -> bool:
        """Whether drafts, which pay in this round, are likelier to be right than what was found."""
        return False

    def observe(self, times: RoundTimes) -> None:
        """Learn from a round for the kind of proposal that it used; both learn what a round without a draft takes."""
        self._lookup.observe(times if self._copied or not times.drafted else OTHERS)
        self._drafts.observe(OTHERS if self._copied else times)

    @property
    def parts(self) -> tuple[Committed, ...]:
        """The lookup and the model, which each follow the text."""
        return (self._lookup, self._model)

    def commit(self, token_ids: Sequence[int]) -> None:
        """Report the tokens to both."""
        self._lookup.commit(token_ids)
        self._model.commit(token_ids)


class TreeHybrid(Hybrid):
    """Proposes a tree of what followed the same words before, or what the language model drafts.

    Behind a match of two tokens the model drafts, unless its drafts do not pay. So where they cost as much as the pass
    that verifies them, as those of a target that drafts for itself over a short text, every match is used.
    """

    def _drafts_are_better(self) -> bool:
        assert isinstance(self._lookup, RetrievalTree)
        return self._lookup.matched < MIN_COPIED_NGRAM

    @classmethod
    def search(cls, request: ProposerRequest) -> RetrievalTree:
        """Return what looks for trees."""
        return RetrievalTree.from_request(request)
