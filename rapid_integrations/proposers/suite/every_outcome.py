"""Walks every outcome of a run that draws random numbers, each with its exact probability."""

import math
from collections import defaultdict
from collections.abc import Callable, Hashable
from typing import TypeVar

from torch import Tensor

Outcome = TypeVar("Outcome", bound=Hashable)

TOLERANCE = 1e-5  # on the sum of a float32 distribution


class EnumeratedRandomness:
    """Stands in for `sampling.Randomness`: each run takes the next path through the tree of all decisions.

    A run is repeated from its beginning for every path (a depth-first search by replay), so it must depend on nothing
    but the decisions; that is checked. Outcomes of probability zero are not walked.
    """

    def __init__(self) -> None:
        # Per decision the outcomes not walked yet, the current one last, and how many there were.
        self._open: list[list[tuple[int, float]]] = []
        self._offered: list[tuple[tuple[int, float], ...]] = []
        self._depth = 0
        self.probability = 1.0

    def accept(self, probability: float) -> bool:
        """Walk both outcomes, True with this probability."""
        assert -TOLERANCE <= probability <= 1 + TOLERANCE, f"{probability} is no probability"
        probability = min(1.0, max(0.0, probability))
        return bool(self._decide((1, probability), (0, 1.0 - probability)))

    def draw(self, probs: Tensor) -> int:
        """Walk every index of `probs` (V,) that is not 0."""
        values = probs.tolist()
        total = math.fsum(values)
        assert probs.dim() == 1 and min(values) >= 0.0 and abs(total - 1) < TOLERANCE, f"{values} is no distribution"
        return self._decide(*((index, value / total) for index, value in enumerate(values)))

    def _decide(self, *outcomes: tuple[int, float]) -> int:
        possible = tuple(outcome for outcome in outcomes if outcome[1] > 0.0)
        if self._depth == len(self._open):
            self._open.append(list(possible))
            self._offered.append(possible)
        assert self._offered[self._depth] == possible, "the run does not repeat: it depends on more than the decisions"
        outcome, probability = self._open[self._depth][-1]
        self._depth += 1
        self.probability *= probability
        return outcome

    def next_path(self) -> bool:
        """Go on to the next path; False when all have been walked."""
        assert self._depth == len(self._open), "the run does not repeat: it ended before its last decision"
        while self._open:
            self._open[-1].pop()
            if self._open[-1]:
                break
            self._open.pop()
            self._offered.pop()
        self._depth, self.probability = 0, 1.0
        return bool(self._open)


def enumerate_outcomes(run: Callable[[EnumeratedRandomness], Outcome]) -> dict[Outcome, float]:
    """Return the distribution of what `run` returns."""
    rng = EnumeratedRandomness()
    outcomes: defaultdict[Outcome, float] = defaultdict(float)
    while True:
        outcome = run(rng)
        outcomes[outcome] += rng.probability
        if not rng.next_path():
            return dict(outcomes)
