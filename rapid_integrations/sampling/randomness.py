"""The only source of chance in decoding: an explicit generator, one per request."""

from __future__ import annotations

import torch
from torch import Tensor

from rapid_integrations.sampling.ops import Ops
from rapid_integrations.sampling.torch_ops import REFERENCE

_AHEAD = 64  # uniform numbers


class Randomness:
    """Decisions of known probability, drawn from one `torch.Generator` on the CPU.

    Decoding asks for two kinds of decision only. A test can therefore replace this class by one that walks every
    outcome with its probability, and compare the outcome distribution of the real loop exactly.

    Args:
        seed: repeatable decisions; None draws a fresh seed.
        ops: what finds the drawn index. A seed means the same with all of them: each draw takes one uniform number.
    """

    def __init__(self, seed: int | None = None, ops: Ops = REFERENCE) -> None:
        self._ops = ops
        self._generator = torch.Generator("cpu")
        if seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(seed)
        self._ready: list[float] = []  # the next ones, last first

    def accept(self, probability: float) -> bool:
        """Return True with this probability. Only what is impossible draws nothing.

        Whether a probability is 1 or all but 1 can hang on the rounding of a pass, which depends on what else is read
        in it. If certainty saved a number, a seed would give another sample in company than alone.
        """
        return probability > 0.0 and self._uniform() < probability

    def draw(self, probs: Tensor) -> int:
        """Return an index of `probs` (V,), drawn in proportion to its entries; a zero entry is never drawn."""
        return self._ops.draw(probs, self._uniform())

    def ahead(self, count: int) -> list[float]:
        """Return the next `count` uniform numbers, and leave them to be drawn: another machine may guess the draws."""
        while len(self._ready) < count:
            self._ready = self._more() + self._ready
        return self._ready[: -count - 1 : -1]

    def skip(self, count: int) -> None:
        """Count the next `count` uniform numbers as used: another machine has decided by them."""
        for _ in range(count):
            self._uniform()

    def _uniform(self) -> float:
        if not self._ready:
            self._ready = self._more()
        return self._ready.pop()

    def _more(self) -> list[float]:
        # Many at a time: between two steps of a model, which empty the caches, a call of torch takes some 30 us.
        drawn: list[float] = torch.rand(_AHEAD, generator=self._generator, dtype=torch.float64, device="cpu").tolist()
        return drawn[::-1]
