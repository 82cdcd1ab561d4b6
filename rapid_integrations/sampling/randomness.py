"""The only source of chance in decoding: an explicit generator, one per request."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from rapid_integrations.sampling.vectors import best, total

_BLOCK = 256  # entries


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
        token = best(probs)
        if float(probs[token]) == total(probs):
            return token
        # In two strides, to a block and then in it: adding up a vocabulary one by one takes longer than a layer.
        blocks = pad(probs, (0, -probs.shape[-1] % _BLOCK)).view(-1, _BLOCK)
        sums = blocks.sum(-1, dtype=torch.float64)
        block, left = _reach(sums, float(sums.sum()) * self._uniform())
        return block * _BLOCK + _reach(blocks[block], left)[0]

    def _uniform(self) -> float:
        return float(torch.rand((), generator=self._generator, dtype=torch.float64))


def _reach(weights: Tensor, distance: float) -> tuple[int, float]:
    """Return the weight in which so much of their sum is reached, and what of the distance is left there."""
    cumulative = weights.double().cumsum(-1)
    # Rounding can push the distance up to the total; the last weight that adds to it is meant then.
    last = int(torch.searchsorted(cumulative, cumulative[-1]))
    place = min(last, int(torch.searchsorted(cumulative, distance, right=True)))
    return place, distance - (float(cumulative[place - 1]) if place else 0.0)
