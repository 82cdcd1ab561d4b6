"""Which layers a draft leaves out: a search during the request, by acceptance for a counted cost.

Source: SWIFT (arXiv 2410.06916), which optimises the set on the text that is generated. Here a set is tried on the same
tokens as the best one so far, in one pass over a draft that was written anyway. No clock is read.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

FIRST_SHARE = 0.15  # of the layers
OTHER_SHARES = (0.3, 0.45)  # tried next; SWIFT begins with 0.45, at which SmolLM2 guesses nothing right (docs/log/)
_SEED = 0  # the order of trials is the same in each request
_PRIOR_RIGHT, _PRIOR_TRIED = 2.0, 4.0  # guesses
_ROW = 0.05  # modelled share of a pass that a further row costs


class LayerSearch:
    """Proposes sets of layers to be tried, and keeps the best.

    Args:
        layers: of the model.
        share: of the model's cost for a token that is left without some layers.

    Attributes:
        best: the layers that are left out at present.
    """

    TOKENS = 16  # on which a set is compared
    MOST = 40  # sets; then the search ends

    def __init__(self, layers: int, share: Callable[[frozenset[int]], float]) -> None:
        self._layers, self._share = layers, share
        self._random = Random(_SEED)
        self.best = evenly_spread(layers, FIRST_SHARE)
        self._next = [evenly_spread(layers, share) for share in OTHER_SHARES]
        self._tried = {self.best}
        self._trials = 0
        self._candidate: frozenset[int] | None = None
        self._tokens = 0
        self._right = [0, 0]  # guesses of the best set and of the candidate, on the same tokens

    def candidate(self) -> frozenset[int] | None:
        """Return the set that is being tried; None once the search has ended."""
        if self._candidate is None and self._trials < self.MOST:
            self._candidate = self._neighbour()
            self._trials += 1
            self._tokens, self._right = 0, [0, 0]
        return self._candidate

    def learn(self, best: bool, candidate: bool) -> None:
        """Take note of whether both sets guessed a token. When there are enough, the one with more gain is kept."""
        assert self._candidate is not None, "there is a candidate"
        self._tokens += 1
        self._right[0] += best
        self._right[1] += candidate
        if self._tokens == self.TOKENS:
            if self._gain(self._candidate, self._right[1]) > self._gain(self.best, self._right[0]):
                self.best = self._candidate
            self._candidate = None

    def _gain(self, skipped: frozenset[int], right: int) -> float:
        """Return the acceptance of a draft token for what it costs, in passes of the whole model.

        The expected speed would not do: it prefers the cheapest guesses, which are all wrong, to dear ones that are
        nearly as good as needed.
        """
        return (right + _PRIOR_RIGHT) / (self._tokens + _PRIOR_TRIED) / (self._share(skipped) + _ROW)

    def _neighbour(self) -> frozenset[int] | None:
        """Return a set that was not tried: it differs in one or two layers from the best one. None if none is found."""
        for _ in range(100):
            change = {self._random.randrange(self._layers) for _ in range(self._random.choice((1, 2)))}
            other = self._next.pop(0) if self._next else self.best ^ change
            if other not in self._tried and 0 < len(other) < self._layers:
                self._tried.add(other)
                return other
        return None


def evenly_spread(layers: int, share: float) -> frozenset[int]:
    """Return layers at equal distances between the first and the last one: a share of all, and at least one."""
    inner = range(1, layers - 1) if layers > 2 else range(1, layers)
    count = min(max(1, round(share * layers)), len(inner))
    return frozenset(inner[(2 * each + 1) * len(inner) // (2 * count)] for each in range(count))
