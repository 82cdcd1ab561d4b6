"""Numbers: bounds, steps and the formats of integers; and how the numbers of a schema are read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rapid_integrations.structured.formats import INTEGER_RANGES
from rapid_integrations.structured.schema.left_out import LeftOut

MAX_REMAINDERS = 10_000
"""Maximum of `remainders` with which steps are enforced."""

EXACT_INTEGER = 2**53
"""Magnitude of integers beyond which they are compared as floats, which may be one off."""

LARGE = 10**17
"""Magnitude of bounds beyond which the library takes some and refuses others."""

LARGEST = (10**18, 2**63 - 1)
"""Magnitude of bounds beyond which it allows too much: of numbers, and of integers."""

_LEAST, _MOST = -(2**63), 2**64 - 1  # integers that the library reads


def convert_numbers(given: Mapping[str, Any], out: dict[str, Any], where: str, left_out: LeftOut, steps: bool) -> None:
    """Convert the keywords of numbers.

    Args:
        given: the schema that holds them.
        out: what its other keywords have become, and these will.
        where: the JSON pointer of the schema.
        left_out: takes bounds that are too large or not exact, and steps that are not enforced.
        steps: whether the library can follow the steps of the whole schema (`remainders`).
    """
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        value, strict = finite_number(given.get(bound)), given.get(exclusive)
        edges = [each for each in (value, finite_number(strict)) if each is not None]
        most = LARGE if left_out.gives_up("large bounds") else LARGEST[out.get("type") == "integer"]
        if any(abs(each) > most for each in edges) or too_large(given.get(bound)) or too_large(strict):
            left_out.add(where, f"{bound} {str(given.get(bound, strict)):.40}")
            continue
        if any(abs(each) > EXACT_INTEGER for each in edges):
            left_out.add(where, f"{bound} {str(edges[0]):.40} exactly")
        if strict is True and value is not None:  # draft 4
            out[exclusive] = value
            continue
        if value is not None:
            out[bound] = value
        if (beyond := finite_number(strict)) is not None:
            out[exclusive] = beyond
    multiple = finite_number(given.get("multipleOf"))
    if multiple is not None and multiple > 0:
        if left_out.gives_up("multipleOf") or not steps:
            left_out.add(where, f"multipleOf {multiple}")
        else:
            out["multipleOf"] = multiple
    if isinstance(name := given.get("format"), str) and name in INTEGER_RANGES and out.get("type") == "integer":
        low, high = INTEGER_RANGES[name]
        out["minimum"] = max(out.get("minimum", low), low)
        out["maximum"] = min(out.get("maximum", high), high)


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
