"""Change a JSON schema before it is enforced."""

from __future__ import annotations

from typing import Any

from rapid_integrations.structured.bounds import check_schema

# Values rather than schemas; and parts that are only closed together.
_LEFT_AS_THEY_ARE = ("const", "enum", "default", "examples", "allOf")


def closed(schema: Any) -> Any:
    """Return `schema` without further properties in objects that do not mention them.

    By the standard, such an object may hold anything besides what it declares. A class that ignores the rest gains
    nothing from it, and a model may write on forever. A schema that an allOf extends stays open, because closing it
    would exclude the other parts.

    Raises:
        ConfigurationError: the schema is too large or nested too deep.
    """
    check_schema(schema)
    return _closed(schema, _bases(schema), "#")


def _closed(schema: Any, bases: frozenset[str], where: str) -> Any:
    if isinstance(schema, list):
        return [_closed(item, bases, where) for item in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {
        key: value if key in _LEFT_AS_THEY_ARE else _closed(value, bases, f"{where}/{key}")
        for key, value in schema.items()
    }
    declares = isinstance(inner.get("properties"), dict) or bool(inner.get("patternProperties"))
    if declares and inner.get("type") == "object" and where not in bases:
        inner.setdefault("additionalProperties", False)
    return inner


def _bases(schema: Any) -> frozenset[str]:
    """Return the references within every allOf, which name what others extend."""
    found: set[str] = set()
    pending = [schema]
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            pending += value
        elif isinstance(value, dict):
            for part in value.get("allOf") or () if isinstance(value.get("allOf"), list) else ():
                if isinstance(part, dict) and isinstance(part.get("$ref"), str) and len(value["allOf"]) > 1:
                    found.add(part["$ref"])
            pending += value.values()
    return frozenset(found)
