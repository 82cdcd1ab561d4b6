"""The paired bootstrap: intervals of means, differences and ratios."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]

RESAMPLES = 4000
MIN_CLUSTERS = 10
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A value and its 95% bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Resamples:
    """The units that a bootstrap draws. All compared figures use the same ones.

    Questions of one document are not independent, so whole documents are drawn if there are at least `MIN_CLUSTERS`
    of them. Otherwise single questions are drawn, and the interval is too narrow rather than meaningless.

    Attributes:
        units: (n,) the unit of each question, 0 .. U - 1.
        counts: (R, U) how often unit u occurs in resample r.
    """

    units: NDArray[np.int64]
    counts: Array

    @classmethod
    def draw(cls, documents: Sequence[str], seed: int = 0, resamples: int = RESAMPLES) -> Resamples:
        """Draw resamples of questions, given the document of each question."""
        names, units = np.unique(np.asarray(documents), return_inverse=True)
        if len(names) < MIN_CLUSTERS:
            units = np.arange(len(documents))
        size = int(units.max()) + 1
        counts = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), size=resamples)
        return cls(units.astype(np.int64), counts.astype(np.float64))

    def sums(self, values: Sequence[float] | Array) -> Array:
        """Return (R,) the sum of `values` (n,) in each resample."""
        per_unit = np.bincount(self.units, weights=np.asarray(values, dtype=np.float64), minlength=self.counts.shape[1])
        return np.asarray(self.counts @ per_unit)

    def means(self, values: Sequence[float] | Array) -> Array:
        """Return (R,) the mean of `values` (n,) in each resample."""
        return self.sums(values) / self.sums(np.ones(len(self.units)))


def interval(value: float, resampled: Array) -> Estimate:
    """Return `value` with the percentile interval of `resampled` (R,). Resamples that are not finite do not count."""
    finite = resampled[np.isfinite(resampled)]
    if not len(finite):
        return Estimate(value, value, value)
    low, high = np.quantile(finite, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high))


def ratio_estimate(
    above: tuple[Sequence[float], Sequence[float]],
    below: tuple[Sequence[float], Sequence[float]],
    resamples: Resamples,
) -> Estimate:
    """Return the ratio of two rates with its interval.

    Args:
        above, below: amounts (n,) and seconds (n,) of the same n questions.
        resamples: resamples of these questions.
    """
    rates = []
    for amounts, seconds in (above, below):
        with np.errstate(divide="ignore", invalid="ignore"):
            rates.append((float(np.sum(amounts) / np.sum(seconds)), resamples.sums(amounts) / resamples.sums(seconds)))
    (value_above, resampled_above), (value_below, resampled_below) = rates
    with np.errstate(divide="ignore", invalid="ignore"):
        return interval(value_above / value_below, resampled_above / resampled_below)
