"""How many tokens to draft: a fixed number, or the one with the best expected speed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol


@dataclass(frozen=True)
class RoundCosts:
    """What one round of drafting and verifying took.

    Attributes:
        drafted: K.
        accepted: how many of them stood.
        propose_s, score_s, verify_s: seconds; score is the drafter's share of forming the law.
    """

    drafted: int
    accepted: int
    propose_s: float
    score_s: float
    verify_s: float


class DraftLength(Protocol):
    """Chooses K before each round."""

    def next(self) -> int:
        """Return the draft length of the coming round."""
        ...

    def observe(self, costs: RoundCosts) -> None:
        """Learn from a finished round."""
        ...


class FixedDraftLength:
    """Always the same K."""

    def __init__(self, length: int) -> None:
        self._length = length

    def next(self) -> int:
        """Return K."""
        return self._length

    def observe(self, costs: RoundCosts) -> None:
        """Nothing to learn."""


@dataclass(frozen=True)
class CostModel:
    """Costs of the parts of a round, in any unit.

    Attributes:
        propose: per drafted token.
        score: of a pass of the drafter to form the law (0 under the law "target").
        verify: of a round with K = 0.
        verify_per_token: added by each draft token.
        score_when_accepted: the drafter proposes and so has scored the draft; only behind a full acceptance does it
            take one more step.
    """

    propose: float
    score: float
    verify: float
    verify_per_token: float
    score_when_accepted: bool = False


class AdaptiveDraftLength:
    """The K in 0..max_length that maximises expected tokens per unit of cost.

    With acceptance a per token a round of K yields (1 - a^(K+1)) / (1 - a) tokens. Acceptance is learnt from every
    round. Costs are learnt from measured times, or, with `measure=False`, stay those given: the choice is then a
    function of the tokens alone, so that a seed reproduces sampled output.

    The law never depends on K, so neither does what the output follows.

    Args:
        max_length: the largest K.
        costs: a first guess, whose unit does not matter.
        measure: learn costs from time.
        min_length: the smallest K; 0 allows falling back to plain decoding.
    """

    COST_MEMORY = 0.9  # weight of the past in each running mean of a cost, per round
    TOKEN_MEMORY = 0.97  # weight of the past in the acceptance, per token that was tried
    PROBE_EVERY = 32  # rounds of plain decoding after which drafting is tried again

    def __init__(self, max_length: int, costs: CostModel, *, measure: bool = True, min_length: int = 0) -> None:
        self._max, self._min = max_length, min_length
        self._costs = costs
        self._measure = measure
        self._measured: set[str] = set()
        self._accepted, self._tried = 3.0, 4.0  # a prior of 0.75, worth four tokens
        self._plain_rounds = 0

    @property
    def acceptance(self) -> float:
        """The running estimate of the probability that a draft token is accepted."""
        return min(self._accepted / self._tried, 0.99)

    def next(self) -> int:
        """Return the best K; now and then 1 where that is 0, to notice when drafting pays again."""
        best = max(range(self._min, self._max + 1), key=self._speed)
        if best > 0:
            self._plain_rounds = 0
            return best
        self._plain_rounds += 1
        return 1 if self._plain_rounds % self.PROBE_EVERY == 0 else 0

    def _speed(self, length: int) -> float:
        a, costs = self.acceptance, self._costs
        tokens = (1 - a ** (length + 1)) / (1 - a)
        score = costs.score * (a**length if costs.score_when_accepted else 1.0)
        return tokens / (costs.verify + score + length * (costs.propose + costs.verify_per_token))

    def observe(self, costs: RoundCosts) -> None:
        """Update acceptance, and costs where they are measured."""
        if costs.drafted:
            tried = costs.accepted + (costs.accepted < costs.drafted)
            keep = self.TOKEN_MEMORY**tried
            self._accepted = keep * self._accepted + costs.accepted
            self._tried = keep * self._tried + tried
        if self._measure and costs.verify_s > 0:
            self._learn(costs)

    def _learn(self, costs: RoundCosts) -> None:
        model = self._costs
        # One time cannot tell base from slope: the slope keeps its share of the base.
        share = model.verify_per_token / model.verify
        base = costs.verify_s / (1 + share * costs.drafted)
        if not self._measured:  # put the whole guess into seconds, so that nothing is compared across units
            scale = base / model.verify
            model = replace(model, propose=model.propose * scale, score=model.score * scale, verify=base)
        verify = self._blend("verify", model.verify, base)
        propose, score = model.propose, model.score
        if costs.drafted:
            propose = self._blend("propose", propose, costs.propose_s / costs.drafted)
        if not model.score_when_accepted or costs.accepted == costs.drafted:
            score = self._blend("score", score, costs.score_s)
        self._costs = replace(model, propose=propose, score=score, verify=verify, verify_per_token=share * verify)

    def _blend(self, name: str, old: float, new: float) -> float:
        """Return the running mean of a cost; its first measurement replaces the guess."""
        keep = self.COST_MEMORY if name in self._measured else 0.0
        self._measured.add(name)
        return keep * old + (1 - keep) * new
