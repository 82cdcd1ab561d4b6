"""What a draft token adds to a pass, learnt from all requests of an engine."""

from __future__ import annotations

from collections.abc import Hashable


class RowShare:
    """The share of a pass without a draft that each draft token adds to it.

    A request that drafts seldom learns too little to correct a guess by: where a guess was three times too high, drafts
    that would have paid were never made. An engine's later requests know what the earlier ones have measured.

    Args:
        guess: the share before anything was measured.
    """

    MEMORY = 0.99  # weight of the past, per round with a draft
    PRIOR_WEIGHT = 4.0  # of the guess: as much as a round with two draft tokens

    def __init__(self, guess: float) -> None:
        self._guess = guess
        self._more = self._squares = 0.0

    @property
    def value(self) -> float:
        """The share."""
        return (self._more + self.PRIOR_WEIGHT * self._guess) / (self._squares + self.PRIOR_WEIGHT)

    def learn(self, length: int, more: float) -> None:
        """Take note of a round with `length` draft tokens, which took `more` than a pass without, as a share of that.

        A token adds at most a pass: what takes longer is the machine's other work.
        """
        self._more = self.MEMORY * self._more + length * min(max(more, 0.0), float(length))
        self._squares = self.MEMORY * self._squares + length * length


class RowShares:
    """The shares of an engine: one for each way to draft and to score."""

    def __init__(self) -> None:
        self._shares: dict[Hashable, RowShare] = {}

    def of(self, way: Hashable, per_token: float, plain: float) -> RowShare:
        """Return the share of a way to draft. It begins as that of guessed costs, of a token and of a pass without."""
        return self._shares.setdefault(way, RowShare(per_token / plain if plain else 0.0))
