"""The keyword `type`: the types of JSON, and what people call them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rapid_integrations.errors import ConfigurationError

TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
# Common wrong names of types.
_OTHER_TYPES: dict[str, str | None] = {
    "str": "string", "text": "string", "file": "string", "int": "integer", "long": "integer", "float": "number",
    "double": "number", "bool": "boolean", "list": "array", "tuple": "array", "dict": "object", "none": "null",
    "nil": "null", "any": None,
}  # fmt: skip


def types_of(given: Mapping[str, Any], where: str) -> list[str] | None:
    """Return the types that a schema allows, or None if it allows any.

    Raises:
        ConfigurationError: one of them is none.
    """
    written = given.get("type")
    if written is None:
        return None
    found: list[str] = []
    for each in written if isinstance(written, (list, tuple)) else [written]:
        name = "null" if each is None else each
        if isinstance(name, Mapping):  # a schema as a type, as drafts before 4 had it
            return None
        if not isinstance(name, str) or name not in TYPES and name.lower() not in {*TYPES, *_OTHER_TYPES}:
            raise ConfigurationError(
                f"Invalid type: {str(each):.100} (in the JSON schema at {where or '/'}); there are {', '.join(TYPES)}"
            )
        name = name if name in TYPES else name.lower()
        meant = _OTHER_TYPES.get(name, name)
        if meant is None:
            return None
        found.append(meant)
    if given.get("nullable") is True:
        found.append("null")
    return list(dict.fromkeys(found)) or None


def kinds(given: Mapping[str, Any]) -> set[str] | None:
    """Return the types of a schema's values, with "number" for integers, or None if they may be any."""
    kind = given.get("type")
    found = {kind} if isinstance(kind, str) else set(kind) if isinstance(kind, (list, tuple)) else None
    if not found or not found.issubset(TYPES):
        return None
    nullable = {"null"} if given.get("nullable") is True else set()
    return {"number" if each == "integer" else each for each in found} | nullable
