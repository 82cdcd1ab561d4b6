"""Schemas that hold together, or one of several: `anyOf`, `oneOf` and `allOf`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rapid_integrations.structured.bounds import check_options
from rapid_integrations.structured.schema.exclusive import exclude_one_another
from rapid_integrations.structured.schema.kinds import kinds
from rapid_integrations.structured.schema.left_out import LeftOut
from rapid_integrations.structured.schema.result import Followed, Schema, Within


def convert_combinations(
    given: Mapping[str, Any], out: dict[str, Any], where: str, left_out: LeftOut, within: Within, followed: Followed
) -> list[Schema]:
    """Convert `anyOf`, `oneOf` and `allOf`. Return schemas that have to hold beside `out`.

    Raises:
        ConfigurationError: there are too many options, or one of them is wrong.
    """
    beside: list[Schema] = []
    for keyword in ("anyOf", "oneOf"):
        options = given.get(keyword)
        if not isinstance(options, (list, tuple)) or not options:
            continue
        check_options(keyword, options, where)
        found = _options(options, f"{where}/{keyword}", left_out, within)
        if (
            keyword == "oneOf"
            and "discriminator" not in given
            and not exclude_one_another([followed(option) for option in options], kinds(given) == {"object"})
        ):
            left_out.add(where, "oneOf (anyOf is enforced)")
        if "anyOf" in out:
            beside.append({"anyOf": found})
        else:
            out["anyOf"] = found
    if isinstance(every := given.get("allOf"), (list, tuple)) and every:
        check_options("allOf", every, where)
        parts = [within(each, f"{where}/allOf/{number}") for number, each in enumerate(every)]
        if left_out.gives_up("allOf") and len(parts) > 1:
            left_out.add(where, "allOf (its first schema is enforced)")
            parts = parts[:1]
        if left_out.gives_up("beside allOf") and (out or beside):
            left_out.add(where, "what stands beside allOf")
            out.clear()
            beside.clear()
        beside += parts
    return beside


def _options(options: Sequence[Any], where: str, left_out: LeftOut, within: Within) -> list[Schema]:
    """Convert options, without strings whose pattern cannot be enforced where a number is another option."""
    found: list[Schema] = []
    loose: list[tuple[int, list[str]]] = []  # strings whose pattern is missing
    for number, option in enumerate(options):
        with left_out.set_apart() as rules:
            found.append(within(option, f"{where}/{number}"))
        if isinstance(option, Mapping) and option.get("type") == "string" and any(": pattern" in x for x in rules):
            loose.append((number, rules))
        else:
            left_out.rules += rules
    numbers = [each for each in found if isinstance(each, dict) and each.get("type") in ("number", "integer")]
    if loose and numbers:  # a decimal as a number or as text: as a number it is right without the pattern
        dropped = {number for number, _ in loose}
        return [each for number, each in enumerate(found) if number not in dropped]
    for _, rules in loose:
        left_out.rules += rules
    return found
