"""Check whether a schema has finite answers. A schema that requires itself has none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rapid_integrations.structured.schema.kinds import TYPES


def some_answer_ends(root: Any, definitions: Mapping[str, Any], *, false_ends: bool = False) -> bool:
    """Whether some finite value may satisfy the schema, that is, no definition requires itself.

    Args:
        root: the schema.
        definitions: the schemas that it refers to, by name.
        false_ends: take what is false for satisfied, to tell the two reasons apart.
    """
    finite: set[str] = set()

    def ends(schema: Any) -> bool:
        if not isinstance(schema, dict):
            return false_ends or schema is not False
        if (reference := schema.get("$ref")) is not None and reference.rpartition("/")[2] not in finite:
            return False
        if not all(ends(each) for each in schema.get("allOf", ())):
            return False
        if "anyOf" in schema and not any(ends(each) for each in schema["anyOf"]):
            return False
        kind = schema.get("type")
        kinds = [kind] if isinstance(kind, str) else list(kind or TYPES)
        if "const" in schema or "enum" in schema or any(each not in ("object", "array") for each in kinds):
            return True
        properties = schema.get("properties", {})
        object_ends = all(ends(properties.get(name, True)) for name in schema.get("required", ()))
        least = schema.get("minItems", 0)
        first = schema.get("prefixItems", [])
        array_ends = all(ends(each) for each in first[:least]) and (least <= len(first) or ends(schema.get("items")))
        return ("object" in kinds and object_ends) or ("array" in kinds and array_ends)

    grown, backwards = True, list(definitions.items())[::-1]  # a definition stands after those that refer to it
    while grown:
        grown = False
        for name, schema in backwards:
            if name not in finite and ends(schema):
                finite.add(name)
                grown = True
    return ends(root)
