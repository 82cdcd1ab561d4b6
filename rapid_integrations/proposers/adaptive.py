"""Chooses among the proposers that run no model, by the output per second that each has measured in this request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from rapid_integrations.decoding.draft_length import SHARE_PER_TOKEN, RoundTimes
from rapid_integrations.decoding.proposal import NoProposer, Proposal, Proposer, ProposerRequest
from rapid_integrations.proposers.prompt_lookup import PromptLookup
from rapid_integrations.proposers.retrieval_tree import RetrievalTree
from rapid_integrations.sampling import Randomness

FIRST_ROUNDS = 2  # rounds in which each kind of proposal is tried before kinds are compared
PROBE_EVERY = 32  # rounds, after which the kind that was not tried for longest is tried again
MEMORY = 0.95  # weight of the past, per round of that kind


class _Measured:
    """A proposer, and what its rounds gave and cost."""

    def __init__(self, proposer: Proposer) -> None:
        self.proposer = proposer
        self.rounds, self.last_round = 0, -1
        self._tokens = self._cost = 0.0

    @property
    def speed(self) -> float:
        """Output per unit of cost, of the recent rounds."""
        return self._tokens / self._cost if self._cost else 0.0

    def learn(self, tokens: int, cost: float) -> None:
        """Add a round."""
        self._tokens = MEMORY * self._tokens + tokens
        self._cost = MEMORY * self._cost + cost
        self.rounds += 1


class AdaptiveProposer(Proposer):
    """Proposes what has been fastest: nothing, one copied continuation, or a tree of them.

    The choice depends on finished rounds only. It is made before a token of the round is drawn, so each token follows
    the law. A round in which nothing was found counts as one without a draft.

    Args:
        plain: proposes nothing.
        others: return their proposals at once, because they run no model.
        measure: costs are seconds. If not, they are modelled from the number of draft tokens, and the choice is then a
            function of the tokens alone.
    """

    def __init__(self, plain: Proposer, others: Sequence[Proposer], *, measure: bool) -> None:
        self._plain = _Measured(plain)
        self._kinds = [self._plain, *map(_Measured, others)]
        self._measure = measure
        self._round = 0
        self._current = self._plain

    @classmethod
    def from_request(cls, request: ProposerRequest) -> Self:
        """Return a proposer over all texts of the request."""
        others = [RetrievalTree.from_request(request), PromptLookup.from_request(request)]
        return cls(NoProposer.from_request(request), others, measure=request.lengths.measure)

    def propose(self, limit: int, rng: Randomness) -> Proposal:
        """Return a proposal of the kind that is best now; it may be empty."""
        self._round += 1
        for kind in self._in_order():
            kind.last_round, self._current = self._round, kind
            proposal = kind.proposer.propose(limit, rng)
            assert isinstance(proposal, Proposal), "proposers that run a model are not chosen from"
            if proposal.token_ids or kind is self._plain:
                return proposal
        self._current = self._plain  # nothing was found
        return Proposal(())

    def _in_order(self) -> list[_Measured]:
        """Return the kinds in the order in which they are asked, until one finds something."""
        best_first = sorted(self._kinds, key=lambda each: -each.speed)
        if self._round % PROBE_EVERY == 0:
            first = [min(self._kinds, key=lambda each: each.last_round)]
        else:
            first = [each for each in self._kinds if each.rounds < FIRST_ROUNDS]
            first.sort(key=lambda each: (each is self._plain, each.rounds))
        return first + [each for each in best_first if each not in first]

    def observe(self, times: RoundTimes) -> None:
        """Learn from a finished round for the kind of proposal that it used."""
        seconds = times.propose_s + times.score_s + times.verify_s
        cost = seconds if self._measure else 1 + SHARE_PER_TOKEN * times.drafted
        self._current.learn(times.accepted + 1, cost)
        for each in self._kinds:
            # A plain round also tells the others what a pass without a draft costs.
            if each is self._current or (self._current is self._plain and times.drafted == 0):
                each.proposer.observe(times)

    def commit(self, token_ids: Sequence[int]) -> None:
        """Report the tokens to all kinds."""
        for each in self._kinds:
            each.proposer.commit(token_ids)
