"""How many tokens of a tree to propose: a fixed number, or as many as pay by measured acceptance and measured costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rapid_integrations.decoding import account
from rapid_integrations.decoding.draft_length import NO_SHARES, CostModel, LinearCost, RoundTimes, Shares


class TreeShape(Protocol):
    """Chooses how much of a tree is proposed.

    Attributes:
        depth: the longest path.
        most: tokens.
    """

    depth: int
    most: int

    def choose(self, chances: Sequence[float]) -> int:
        """Return how many of a tree's tokens to propose, the likeliest first.

        Args:
            chances: of each token the probability that it is accepted, in descending order.
        """
        ...

    def observe(self, times: RoundTimes) -> None:
        """Learn from a finished round what rows cost."""
        ...


class FixedShape:
    """Proposes paths of at most K tokens, and twice as many tokens.

    Args:
        length: K.
    """

    def __init__(self, length: int) -> None:
        self.depth, self.most = length, 2 * length

    def choose(self, chances: Sequence[float]) -> int:
        """Return how many tokens to propose."""
        return min(len(chances), self.most)

    def observe(self, times: RoundTimes) -> None:
        """Do nothing, because the shape is fixed."""


class AdaptiveShape:
    """Proposes the number of tokens with the most expected output per unit of cost.

    A round yields one token, and each proposed token adds its chance. A row's cost is learnt from the times of rounds.
    With `measure=False` the given costs are kept, so that a seed reproduces a sample. An account bounds what rejected
    tokens may cost (`account.py`).

    Args:
        most: tokens of a tree at most, and of a path.
        costs: a first guess, in any unit.
        measure: learn costs from time.
        shares: what a token adds to verifying and to scoring, known from other requests.
    """

    def __init__(self, most: int, costs: CostModel, *, measure: bool = True, shares: Shares = NO_SHARES) -> None:
        self.depth = self.most = most
        self._verify = LinearCost(costs.verify, costs.verify_per_token, shares[0])
        self._score = LinearCost(costs.score, costs.score_per_token, shares[1])
        self._measure = measure
        self._account = account.Account(account.FIRST)

    def choose(self, chances: Sequence[float]) -> int:
        """Return how many tokens to propose."""
        best, tokens, most_speed = 0, 1.0, 1.0 / self._cost(0)
        for count, chance in enumerate(chances[: self.most], start=1):
            if not self._account.covers(self._more(count)):
                break
            tokens += chance
            if (speed := tokens / self._cost(count)) > most_speed:
                best, most_speed = count, speed
        return best

    def observe(self, times: RoundTimes) -> None:
        """Learn what a round of so many rows costs."""
        if self._measure and times.verify_s > 0:
            if not self._verify.measured:  # convert the whole guess to seconds, so no two units are compared
                self._score.scale(times.verify_s / self._verify(times.drafted))
            self._verify.observe(times.drafted, times.verify_s)
            self._score.observe(times.drafted, times.score_s)
        self._account.book(times.accepted, self._more(times.drafted))

    def _more(self, tokens: int) -> float:
        """Return what so many tokens add to a pass without a draft, as a share of that."""
        plain = self._cost(0)
        return self._cost(tokens) / plain - 1 if plain else 0.0

    def _cost(self, tokens: int) -> float:
        return self._verify(tokens) + self._score(tokens)
