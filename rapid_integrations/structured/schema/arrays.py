"""Arrays: their items, and how many there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rapid_integrations.structured.bounds import check_options
from rapid_integrations.structured.schema.numbers import whole_number
from rapid_integrations.structured.schema.result import Within


def convert_array(given: Mapping[str, Any], out: dict[str, Any], where: str, within: Within) -> None:
    """Convert the keywords of arrays.

    Raises:
        ConfigurationError: there are too many schemas of first items, or one within them is wrong.
    """
    for keyword in ("minItems", "maxItems"):
        if (count := whole_number(given.get(keyword))) is not None:
            out[keyword] = count
    items, first = given.get("items"), given.get("prefixItems")
    place = "items"
    if isinstance(items, (list, tuple)):  # drafts before 2020-12
        first, items, place = items, given.get("additionalItems"), "additionalItems"
        prefix = "items"
    else:
        prefix = "prefixItems"
    if isinstance(first, (list, tuple)) and first:
        check_options("prefixItems", first, where)
        out["prefixItems"] = [within(each, f"{where}/{prefix}/{n}") for n, each in enumerate(first)]
    if items is not None:
        out["items"] = within(items, f"{where}/{place}")
