"""The only source of chance in decoding: an explicit generator, one per request."""

from __future__ import annotations

import torch
from torch import Tensor


class Randomness:
    """Decisions of known probability, drawn from one `torch.Generator` on the CPU.

    Decoding asks for two kinds of decision only. A test can therefore replace this class by one that walks every
    outcome with its probability, and compare the outcome distribution of the real loop exactly.

    Args:
        seed: repeatable decisions; None draws a fresh seed.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._generator = torch.Generator()
        if seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(seed)

    def accept(self, probability: float) -> bool:
        """Return True with this probability; certain outcomes draw nothing."""
        if probability >= 1.0:
            return True
        return probability > 0.0 and self._uniform() < probability

    def draw(self, probs: Tensor) -> int:
        """Return an index of `probs` (V,), drawn in proportion to its entries; a zero entry is never drawn.

        A point mass draws nothing.
        """
        best = probs.argmax()
        if probs[best] == probs.sum():
            return int(best)
        cumulative = probs.double().cumsum(-1)
        threshold = cumulative[-1] * self._uniform()
        index = int(torch.searchsorted(cumulative, threshold, right=True))
        # Rounding can push the threshold up to the total; the last entry that adds to it is meant then.
        return min(index, int(torch.searchsorted(cumulative, cumulative[-1])))

    def _uniform(self) -> float:
        return float(torch.rand((), generator=self._generator, dtype=torch.float64))
