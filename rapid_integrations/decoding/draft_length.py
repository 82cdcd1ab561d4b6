"""Chooses how many tokens to draft: a fixed number, or the number with the best expected speed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeAlias

from rapid_integrations.decoding import account
from rapid_integrations.decoding.row_share import RowShare

SHARE_PER_TOKEN = 0.05
"""Modelled share of a pass that each further row adds. Seeded requests use it, as they must not depend on clocks."""
SHARE_ON_PROCESSORS = 0.2
"""The same where a pass of few rows is not limited by memory alone: 0.07 to 0.27 were measured (docs/log/)."""

_NEARLY_ALL = 0.99  # acceptance of a token, at most


@dataclass(frozen=True)
class RoundTimes:
    """The counts and times of one round of drafting and verifying.

    Attributes:
        drafted: K.
        accepted: how many of them were accepted.
        propose_s, score_s, verify_s: seconds of each phase; score is the drafter's pass that forms the law.
    """

    drafted: int
    accepted: int
    propose_s: float
    score_s: float
    verify_s: float


OTHERS = RoundTimes(0, 0, 0.0, 0.0, 0.0)
"""What a chooser is told of a round in which another proposer guessed: that the text has gone on."""


class DraftLength(Protocol):
    """Chooses K before each round."""

    def next(self) -> int:
        """Return the draft length of the coming round."""
        ...

    def observe(self, times: RoundTimes) -> None:
        """Learn from a finished round."""
        ...


class FixedDraftLength:
    """Always chooses the same K."""

    def __init__(self, length: int) -> None:
        self._length = length

    def next(self) -> int:
        """Return K."""
        return self._length

    def observe(self, times: RoundTimes) -> None:
        """Do nothing, because K is fixed."""


@dataclass(frozen=True)
class CostModel:
    """The costs of the parts of a round, in any unit.

    Attributes:
        propose: cost per drafted token.
        score: cost of the drafter's pass that forms the law (0 under the law "target").
        verify: cost of verification in a round with K = 0.
        verify_per_token: cost that each draft token adds to `verify`.
        score_per_token: cost that each draft token which the drafter did not propose itself adds to `score`.
        score_when_accepted: the drafter proposes, so it has already scored the draft. It takes one more step only after
            a full acceptance.
    """

    propose: float
    score: float
    verify: float
    verify_per_token: float
    score_per_token: float = 0.0
    score_when_accepted: bool = False

    def of_round(self, drafted: int, accepted: int) -> float:
        """Return the modelled cost of a round."""
        score = self.score + self.score_per_token * drafted
        if self.score_when_accepted and accepted < drafted:
            score = 0.0
        return drafted * self.propose + self.verify + self.verify_per_token * drafted + score


Shares: TypeAlias = tuple[RowShare | None, RowShare | None]
"""What a draft token adds to verifying and to scoring, known from other requests; None: it is not."""

NO_SHARES: Shares = (None, None)


class LinearCost:
    """A running fit of seconds = base + slope * K, that starts from a guess.

    The guess has the constant weight of `PRIOR_WEIGHT` rounds at K = 0 and as many at K = `PRIOR_LENGTH`. Its ratio of
    slope to base is kept, and its base follows the measurements, because rounds of a single K cannot tell base from
    slope. A few slow rounds with long drafts (on a busy machine) would put the line's base below zero. A round without
    a draft would then seem to cost nothing, so the base is at least `LEAST_BASE` of the mean.

    Args:
        base: the guessed base, in any unit.
        slope: the guessed slope, in the same unit.
        share: the ratio of slope to base in place of the guessed one. It learns from every round with a draft.
    """

    MEMORY = 0.95  # weight of the past, per round
    PLAIN_MEMORY = 0.8  # the same per round without a draft, of what such a round takes
    PRIOR_LENGTH = 8
    PRIOR_WEIGHT = 0.3
    LEAST_BASE = 0.05  # share of the mean seconds of a round

    def __init__(self, base: float, slope: float, share: RowShare | None = None) -> None:
        self._guess = share or RowShare(slope / base if base else 0.0)
        self._learns = share is not None
        self.base, self.slope = base, base * self._guess.value
        self._plain = 0.0  # seconds of a round without a draft; 0 before the first one
        self._rounds = self._lengths = self._squares = self._seconds = self._products = 0.0

    def observe(self, length: int, seconds: float) -> None:
        """Add the seconds of a round with `length` draft tokens to the fit."""
        if self._learns and not length:
            self._plain += (seconds - self._plain) * (1 - self.PLAIN_MEMORY if self._plain else 1.0)
        elif self._learns and self._plain:
            self._guess.learn(length, seconds / self._plain - 1)
        keep, share = self.MEMORY, self._guess.value
        self._rounds = keep * self._rounds + 1
        self._lengths = keep * self._lengths + length
        self._squares = keep * self._squares + length * length
        self._seconds = keep * self._seconds + seconds
        self._products = keep * self._products + length * seconds
        # This is the base if the guessed ratio were right. It places the prior's two points.
        base = self._seconds / (self._rounds + share * self._lengths)
        weight, far = self.PRIOR_WEIGHT, self.PRIOR_LENGTH
        n, k, kk = self._rounds + 2 * weight, self._lengths + weight * far, self._squares + weight * far * far
        there = base * (1 + share * far)
        t, kt = self._seconds + weight * (base + there), self._products + weight * far * there
        self.slope = max(0.0, (n * kt - k * t) / (n * kk - k * k))
        self.base = (t - self.slope * k) / n
        least = self.LEAST_BASE * t / n
        if self.base < least:  # take the line through the mean that starts at `least`
            self.base, self.slope = least, (t - least * n) / k

    def scale(self, factor: float) -> None:
        """Convert an unmeasured guess to another unit."""
        self.base, self.slope = factor * self.base, factor * self.slope

    @property
    def measured(self) -> bool:
        """Whether a round has been observed."""
        return self._rounds > 0

    def __call__(self, length: int) -> float:
        """Return the expected cost of a round of `length` draft tokens."""
        return self.base + self.slope * length


class AdaptiveDraftLength:
    """Chooses the K in 0..max_length that maximises expected tokens per unit of cost.

    With acceptance a per token, a round of K yields (1 - a^(K+1)) / (1 - a) tokens. Acceptance is learnt from every
    round. Costs are learnt from measured times. With `measure=False` the given costs are kept: the choice is then a
    function of the tokens alone, so a seed reproduces sampled output.

    An account bounds what drafts may lose (`account.py`). So drafts are short at first and become longer with what they
    gain. If none pays, one token is tried again at growing distances, at the longest one if drafts would not even pay
    if every token were right: a writer that costs nearly a pass. A writer is only asked if that promises `MARGIN`: what
    it costs is certain, and what it gains is an estimate.

    The law never depends on K, so the distribution of the output does not either.

    Args:
        max_length: the largest K.
        costs: a first guess, in any unit.
        measure: learn costs from time.
        min_length: the smallest K; 0 allows falling back to plain decoding.
        shares: what a token adds to verifying and to scoring, known from other requests.
    """

    COST_MEMORY = 0.9  # weight of the past in the running mean of the cost of proposing, per round
    TOKEN_MEMORY = 0.97  # weight of the past in the acceptance, per token that was tried
    PLAIN_MEMORY = 0.99  # the same per token without a draft: the text may have changed since
    FIRST_WAIT, LONGEST_WAIT = 16, 256  # tokens before drafting is tried again; each wait is twice the one before
    MARGIN = 1.03  # speed over that without a draft that drafts of a writer have to promise

    def __init__(
        self,
        max_length: int,
        costs: CostModel,
        *,
        measure: bool = True,
        min_length: int = 0,
        shares: Shares = NO_SHARES,
    ) -> None:
        self._max, self._min = max_length, min_length
        self._verify = LinearCost(costs.verify, costs.verify_per_token, shares[0])
        self._score = LinearCost(costs.score, costs.score_per_token, shares[1])
        self._propose = costs.propose
        self._margin = self.MARGIN if costs.propose else 1.0
        self._propose_measured = False
        self._score_when_accepted = costs.score_when_accepted
        self._measure = measure
        self._accepted, self._tried = 3.0, 4.0  # a prior of 0.75 with the weight of four tokens
        self._account = account.Account(account.FIRST_OF_A_WRITER if costs.propose else account.FIRST)
        self._plain = 0  # tokens since drafting last seemed to pay, or was tried
        self._wait = self.FIRST_WAIT

    @property
    def acceptance(self) -> float:
        """The running estimate of the probability that a draft token is accepted."""
        return min(self._accepted / self._tried, _NEARLY_ALL)

    def next(self) -> int:
        """Return the best K that the account covers. If it is 0, sometimes return 1: drafting may pay again."""
        best = max(range(self._min, self._max + 1), key=self._speed)
        if not self._min and self._speed(best) <= self._margin * self._speed(0):
            best = 0
        if best > 0:
            self._wait = self.FIRST_WAIT
        elif self._plain >= self._wait:
            best = 1
        while best > self._min and not self._account.covers(self._more(best, 0)):
            best -= 1
        return best

    def _speed(self, length: int, acceptance: float | None = None) -> float:
        a = self.acceptance if acceptance is None else acceptance
        tokens = (1 - a ** (length + 1)) / (1 - a)
        score = self._score(0) * a**length if self._score_when_accepted else self._score(length)
        return tokens / (self._verify(length) + score + length * self._propose)

    @property
    def _may_pay(self) -> bool:
        """Whether drafts are faster than none if nearly every token is right."""
        enough = self._margin * self._speed(0)
        return any(self._speed(k, _NEARLY_ALL) > enough for k in range(1, self._max + 1))

    def _more(self, length: int, accepted: int) -> float:
        """Return what a round's draft adds to a pass without one, as a share of that."""
        plain = self._verify(0) + self._score(0)
        score = self._score(length)
        if self._score_when_accepted:
            score = self._score(0) if accepted == length else 0.0
        return (self._verify(length) + score + length * self._propose) / plain - 1 if plain else 0.0

    def observe(self, times: RoundTimes) -> None:
        """Update acceptance, and costs if they are measured."""
        if times.drafted:
            tried = times.accepted + (times.accepted < times.drafted)
            keep = self.TOKEN_MEMORY**tried
            self._accepted = keep * self._accepted + times.accepted
            self._tried = keep * self._tried + tried
        if self._measure and times.verify_s > 0:
            self._learn(times)
        self._account.book(times.accepted, self._more(times.drafted, times.accepted) if times.drafted else 0.0)
        if not times.drafted:
            self._plain += 1
            if self._tried > 1:
                self._accepted, self._tried = self.PLAIN_MEMORY * self._accepted, self.PLAIN_MEMORY * self._tried
        else:
            if self._plain >= self._wait:  # that was a trial
                wait = self.FIRST_WAIT if times.accepted else min(2 * self._wait, self.LONGEST_WAIT)
                self._wait = wait if self._may_pay else self.LONGEST_WAIT
            self._plain = 0

    def _learn(self, times: RoundTimes) -> None:
        if not self._verify.measured:  # convert the whole guess to seconds, so no two units are compared
            scale = times.verify_s / self._verify(times.drafted)
            self._score.scale(scale)
            self._propose *= scale
        self._verify.observe(times.drafted, times.verify_s)
        if times.drafted:
            # The first measurement replaces the guess, and one after a long time those before it, perhaps of a spike.
            recent = self._propose_measured and self._plain < self.LONGEST_WAIT
            keep = self.COST_MEMORY if recent else 0.0
            self._propose = keep * self._propose + (1 - keep) * times.propose_s / times.drafted
            self._propose_measured = True
        if not self._score_when_accepted:
            self._score.observe(times.drafted, times.score_s)
        elif times.accepted == times.drafted:
            self._score.observe(0, times.score_s)
