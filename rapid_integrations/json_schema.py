"""Changes to a JSON schema before it is enforced. Pure."""

from __future__ import annotations

from typing import Any

# Values rather than schemas; and parts that are only closed together.
_LEFT_AS_THEY_ARE = ("const", "enum", "default", "examples", "allOf")


def closed(schema: Any) -> Any:
    """Return `schema` with objects that say nothing about further properties allowing none.

    By the standard such an object may hold anything besides what it declares. A class that ignores the rest gains
    nothing from it, and a model may write on for ever.
    """
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: value if key in _LEFT_AS_THEY_ARE else closed(value) for key, value in schema.items()}
    if isinstance(inner.get("properties"), dict) and inner.get("type") == "object":
        inner.setdefault("additionalProperties", False)
    return inner
