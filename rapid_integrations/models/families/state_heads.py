"""Values of a state that belong to no heads, taken together as if they did: threads have something to share then."""

from __future__ import annotations

from math import gcd

TOGETHER = 64  # values that a thread computes at a time


def heads_of(values: int) -> tuple[int, int]:
    """Return as how many heads so many values are computed, and how many values each has."""
    together = gcd(values, TOGETHER)
    return values // together, together
