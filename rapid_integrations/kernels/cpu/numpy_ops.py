"""Operations on a processor without kernels: short ones on one thread, by NumPy.

PyTorch spreads an operation over its threads from some thirty thousand elements on. Waking them costs as much as the
work on an idle machine (0.1 ms), and milliseconds on a busy one; a draft asks for several a token. NumPy works alone.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from rapid_integrations.sampling.ops import LEAST_SUM
from rapid_integrations.sampling.torch_ops import TorchOps

Numbers: TypeAlias = "np.ndarray[tuple[int, ...], np.dtype[np.floating[Any]]]"

_BLOCK = 256  # entries


class NumPyOps(TorchOps):
    """`Ops` for vectors in a processor's memory; distributions are formed and truncated in torch."""

    def residual(self, law: Tensor, factor: float, proposed: Tensor) -> tuple[float, Tensor]:
        """Return the sum of max(factor * law - proposed, 0), and that scaled to a sum of 1."""
        rest = _scaled(law.numpy(), factor) - proposed.numpy()
        rest = np.maximum(rest, 0.0, out=rest)
        left = float(rest.sum())
        return left, torch.from_numpy(_scaled(rest, 1.0 / left) if left >= LEAST_SUM else rest)

    def without(self, law: Tensor, token: int) -> Tensor:
        """Return the law (V,) given that the outcome is not `token`; the law itself if nothing else remains."""
        if not law[token]:  # as in a greedy law: nothing to copy and add up
            return law
        rest = law.numpy().copy()
        rest[token] = 0.0
        left = float(rest.sum())
        return torch.from_numpy(_scaled(rest, 1.0 / left)) if left >= LEAST_SUM else law

    def draw(self, probs: Tensor, share: float) -> int:
        """Return the index at which the running sum of `probs` (V,) exceeds this share of its total."""
        numbers = probs.numpy()
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

    def best(self, values: Tensor) -> int:
        """Return the index of the largest entry (V,)."""
        return int(values.numpy().argmax())

    def point_mass(self, token: int, like: Tensor) -> Tensor:
        """Return (V,), 1 at `token` and 0 elsewhere."""
        point = np.zeros(len(like), like.numpy().dtype)
        point[token] = 1.0
        return torch.from_numpy(point)


def _scaled(numbers: Numbers, factor: float) -> Numbers:
    return numbers * numbers.dtype.type(factor)


def _reach(weights: Numbers, distance: float) -> tuple[int, float]:
    """Return the weight in which so much of their sum is reached, and what of the distance is left there."""
    cumulative = weights.cumsum(dtype=np.float64)
    # Rounding can push the distance up to the total; the last weight that adds to it is meant then.
    last = int(cumulative.searchsorted(cumulative[-1]))
    place = min(last, int(cumulative.searchsorted(distance, side="right")))
    return place, distance - (float(cumulative[place - 1]) if place else 0.0)
