"""Whether the options of a `oneOf` exclude one another. If so, `anyOf` says the same, and the library enforces it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rapid_integrations.structured.schema.kinds import kinds


def exclude_one_another(options: Sequence[Mapping[str, Any]], objects: bool) -> bool:
    """Whether no value can satisfy two of the options, judged by types, constants or a constant property.

    Args:
        options: the schemas as they were given, without references.
        objects: whether only objects are allowed at their place.
    """
    if len(options) < 2:
        return True
    for tell in (kinds, _constants_of):
        told = [tell(option) for option in options]
        if all(each is not None for each in told):
            together = [value for each in told for value in each or ()]
            if len(together) == len(set(together)):
                return True
    if not objects and any(kinds(option) != {"object"} for option in options):
        return False  # what is no object may satisfy several
    shared = [_tags(option) for option in options]
    return any(
        all(key in each for each in shared) and len({each[key] for each in shared}) == len(shared) for key in shared[0]
    )


def _constants_of(option: Mapping[str, Any]) -> set[str] | None:
    """Return the values of an option that allows only a few, as texts that are equal for equal values."""
    values = option.get("enum", [option["const"]] if "const" in option else None)
    if not isinstance(values, (list, tuple)) or option.get("nullable") is True:
        return None
    if not all(each is None or isinstance(each, (str, bool, int)) for each in values):
        return None  # 1.0 and 1 are equal, and so are objects in any order
    return {json.dumps(each) for each in values}


def _tags(option: Mapping[str, Any]) -> dict[str, str]:
    """Return the required properties of an object that are constant, by name."""
    properties, required = option.get("properties"), option.get("required")
    if not isinstance(properties, Mapping) or not isinstance(required, (list, tuple)):
        return {}
    constants = {
        name: each.get("const", each["enum"][0] if len(each.get("enum") or ()) == 1 else None)
        for name, each in properties.items()
        if name in required and isinstance(each, Mapping)
    }
    return {name: json.dumps(value) for name, value in constants.items() if isinstance(value, (str, bool, int))}
