"""Read the numbers of a JSON schema: bounds, counts and steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

MAX_REMAINDERS = 10_000
LARGE = 10**17
"""Magnitude of bounds beyond which the library takes some and refuses others."""

LARGEST = (10**18, 2**63 - 1)
"""Magnitude of bounds beyond which it allows too much: of numbers, and of integers."""

_LEAST, _MOST = -(2**63), 2**64 - 1  # integers that the library reads


def remainders(root: Any) -> int:
    """Return the least common multiple of all multipleOf values, each taken as the whole number of its digits.

    The library has a state for each remainder, and multiplies the states of schemas that it joins. 99,991 states take
    two seconds, and 100,000,000 do not end.
    """
    found = 1
    pending = [root]
    while pending and found <= MAX_REMAINDERS:
        value = pending.pop()
        if isinstance(value, Mapping):
            multiple = finite_number(value.get("multipleOf"))
            if multiple is not None and multiple > 0:
                digits = f"{multiple:.9f}".replace(".", "").strip("0") if 1e-6 <= multiple <= 1e9 else ""
                found = math.lcm(found, int(digits)) if digits else MAX_REMAINDERS + 1
            pending += value.values()
        elif isinstance(value, (list, tuple)):
            pending += value
    return found


def finite_number(value: Any) -> int | float | None:
    """Return a number that a double holds with room to spare, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if abs(value) <= 1e300 and math.isfinite(value) else None


def whole_number(value: Any) -> int | None:
    """Return a count (1.0 is one, too), or None for anything else."""
    found = finite_number(value)
    return None if found is None or found < 0 or found != int(found) else min(int(found), 10**9)


def too_large(value: Any) -> bool:
    """Whether a value is a number, but too large to be enforced."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and (value > _MOST or value < _LEAST)
