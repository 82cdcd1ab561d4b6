"""A proposer that tries several others during a request and prefers the one with the most measured gain.

The choice for a round depends on the committed text and on earlier rounds, and it is made before a token is drawn. So
the law is unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from rapid_integrations.decoding.draft_length import OTHERS, CostModel, RoundTimes
from rapid_integrations.decoding.passes import Steps
from rapid_integrations.decoding.proposal import Committed, NoProposer, Proposal, Proposer, ProposerRequest
from rapid_integrations.proposers.draft_head import DraftHeadProposer
from rapid_integrations.proposers.drafter import DrafterProposer, DraftLMProposer
from rapid_integrations.proposers.retrieval_tree import RetrievalTree
from rapid_integrations.sampling import Randomness


class Gain:
    """The running estimate of a proposer's tokens per unit of cost.

    Args:
        costs: models a round. They are also the unit, unless rounds are measured.
        measure: costs are the seconds of the rounds.
    """

    MEMORY = 0.9  # weight of the past, per round

    def __init__(self, costs: CostModel, *, measure: bool) -> None:
        self._costs, self._measure = costs, measure
        self.forget()

    def forget(self) -> None:
        """Start again: the text may have changed since."""
        self._tokens = self._cost = 0.0
        self.rounds = 0

    @property
    def speed(self) -> float:
        """Tokens per unit of cost; 0 before the first round."""
        return self._tokens / self._cost if self._cost else 0.0

    def observe(self, times: RoundTimes) -> None:
        """Add a round: the accepted tokens and the one behind them, and what they cost."""
        cost = self._costs.of_round(times.drafted, times.accepted)
        if self._measure:
            cost = times.propose_s + times.score_s + times.verify_s
        self._tokens = self.MEMORY * self._tokens + times.accepted + 1
        self._cost = self.MEMORY * self._cost + cost
        self.rounds += 1


class _Candidate:
    def __init__(self, proposer: Proposer, gain: Gain) -> None:
        self.proposer, self.gain = proposer, gain
        self.idle = 0  # rounds since it was last used


class Adaptive(Proposer):
    """Asks the candidate with the best measured speed; if that finds nothing, it asks the next one.

    Each candidate is first tried in a few rounds, and again if it was not used for long. A round without drafts counts
    for the last candidate, which proposes nothing.

    Args:
        candidates: proposers with their gains. Those before `model` must draw nothing, as their empty proposals are
            passed over.
        nothing: the gain of a round without drafts.
    """

    TRIALS = 2  # rounds of each before their speeds are compared
    RETRY_AFTER = 64  # rounds without use

    def __init__(self, candidates: Sequence[tuple[Proposer, Gain]], nothing: Gain) -> None:
        self._nothing = _Candidate(NoProposer(), nothing)
        self._candidates = [*(_Candidate(*each) for each in candidates), self._nothing]
        self._asked = self._nothing

    @classmethod
    def from_request(cls, request: ProposerRequest) -> Self:
        """Return a proposer over a search of the texts and the request's head, draft model or drafter."""
        lengths = request.lengths
        writer: type[DraftHeadProposer | DraftLMProposer | DrafterProposer] = DrafterProposer
        if request.draft_head is not None:
            writer = DraftHeadProposer
        elif request.draft_lm is not None:
            writer = DraftLMProposer
        model: Proposer = writer.from_request(request)
        return cls(
            [
                (RetrievalTree.from_request(request), Gain(lengths.copies, measure=lengths.measure)),
                (model, Gain(lengths.drafts, measure=lengths.measure)),
            ],
            Gain(lengths.copies, measure=lengths.measure),
        )

    def propose(self, limit: int, rng: Randomness) -> Steps[Proposal]:
        """Return what the best candidate proposes that finds something."""
        for candidate in self._ranked():
            self._asked = candidate
            proposal = candidate.proposer.propose(limit, rng)
            if not isinstance(proposal, Proposal):
                proposal = yield from proposal
            if proposal.token_ids:
                return proposal
            if candidate is self._nothing:
                break
        return Proposal(())

    def _ranked(self) -> list[_Candidate]:
        """Return the candidates: first those that have to be tried, then the others by speed."""
        untried = [each for each in self._candidates if each.gain.rounds < self.TRIALS]
        others = [each for each in self._candidates if each not in untried]
        return untried + sorted(others, key=lambda each: each.gain.speed, reverse=True)

    def observe(self, times: RoundTimes) -> None:
        """Learn from a round for the candidate whose proposal was used."""
        for candidate in self._candidates:  # all learn what a round without a draft takes
            candidate.proposer.observe(times if candidate is self._asked or not times.drafted else OTHERS)
        used = self._asked if times.drafted else self._nothing
        used.gain.observe(times)
        for candidate in self._candidates:
            candidate.idle = 0 if candidate is used else candidate.idle + 1
            if candidate.idle == self.RETRY_AFTER:
                candidate.gain.forget()

    @property
    def parts(self) -> tuple[Committed, ...]:
        """The parts of every candidate: each follows the text."""
        return tuple(part for candidate in self._candidates for part in candidate.proposer.parts)

    def commit(self, token_ids: Sequence[int]) -> None:
        """Report the tokens to every part."""
        for part in self.parts:
            part.commit(token_ids)
