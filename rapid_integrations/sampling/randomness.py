"""The only source of chance in decoding: an explicit generator, one per request."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rapid_integrations.kernels.cpu.distributions import draw, served
from rapid_integrations.sampling.vectors import Numbers

_BLOCK = 256  # entries
_AHEAD = 64  # uniform numbers


class Randomness:
    """Decisions of known probability, drawn from one `torch.Generator` on the CPU.

    Decoding asks for two kinds of decision only. A test can therefore replace this class by one that walks every
    outcome with its probability, and compare the outcome distribution of the real loop exactly.

    Args:
        seed: repeatable decisions; None draws a fresh seed.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._generator = torch.Generator("cpu")
        if seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(seed)
        self._ready: list[float] = []  # the next ones, last first

    def accept(self, probability: float) -> bool:
        """Return True with this probability; certain outcomes draw nothing."""
        if probability >= 1.0:
            return True
        return probability > 0.0 and self._uniform() < probability

    def draw(self, probs: Tensor) -> int:
        """Return an index of `probs` (V,), drawn in proportion to its entries; a zero entry is never drawn."""
        share = self._uniform()  # drawn whatever it is for: a seed means the same with and without kernels
        if served(probs):
            return draw(probs, share)
        numbers = probs.cpu().numpy()
        # In two strides, to a block and then in it: adding up a vocabulary one by one takes longer than a layer.
        whole = len(numbers) // _BLOCK * _BLOCK
        sums = numbers[:whole].reshape(-1, _BLOCK).sum(-1, dtype=np.float64)
        if whole < len(numbers):
            sums = np.append(sums, numbers[whole:].sum(dtype=np.float64))
        total = float(sums.sum())
        best = int(numbers.argmax())
        if float(numbers[best]) == total:
            return best
        block, left = _reach(sums, total * share)
        start = block * _BLOCK
        return start + _reach(numbers[start : start + _BLOCK], left)[0]

    def _uniform(self) -> float:
        # Many at a time: between two steps of a model, which empty the caches, a call of torch takes some 30 us.
        if not self._ready:
            drawn = torch.rand(_AHEAD, generator=self._generator, dtype=torch.float64, device="cpu")
            self._ready = drawn.tolist()[::-1]
        return self._ready.pop()


def _reach(weights: Numbers, distance: float) -> tuple[int, float]:
    """Return the weight in which so much of their sum is reached, and what of the distance is left there."""
    cumulative = weights.cumsum(dtype=np.float64)
    # Rounding can push the distance up to the total; the last weight that adds to it is meant then.
    last = int(cumulative.searchsorted(cumulative[-1]))
    place = min(last, int(cumulative.searchsorted(distance, side="right")))
    return place, distance - (float(cumulative[place - 1]) if place else 0.0)
