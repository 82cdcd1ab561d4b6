"""Comparing distributions over outcomes."""

from collections.abc import Hashable, Mapping

import torch


def total_variation(one: Mapping[Hashable, float], other: Mapping[Hashable, float]) -> float:
    return sum(abs(one.get(key, 0.0) - other.get(key, 0.0)) for key in one.keys() | other.keys()) / 2


def largest_difference(one: Mapping[Hashable, float], other: Mapping[Hashable, float]) -> float:
    return max(abs(one.get(key, 0.0) - other.get(key, 0.0)) for key in one.keys() | other.keys())


def chi_square_p_value(counts: Mapping[Hashable, int], expected: Mapping[Hashable, float]) -> float:
    """Return how likely so bad a fit is when `counts` come from `expected`; rare outcomes are counted as one."""
    assert counts.keys() <= expected.keys(), f"impossible outcomes: {counts.keys() - expected.keys()}"
    runs = sum(counts.values())
    cells, rare = [], [0.0, 0.0]
    for outcome, probability in expected.items():
        cell = [float(counts.get(outcome, 0)), runs * probability]
        if cell[1] < 10:
            rare = [rare[0] + cell[0], rare[1] + cell[1]]
        else:
            cells.append(cell)
    if rare[1] > 5:
        cells.append(rare)
    statistic = sum((seen - wanted) ** 2 / wanted for seen, wanted in cells)
    freedom = len(cells) - 1
    assert freedom >= 1, "too few runs for a test"
    halves = torch.tensor([freedom / 2, statistic / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(halves[0], halves[1]))
