"""What the drafts of JSON Schema say differently, and where in a schema the schemas stand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

NEWEST = "2020-12"
_DRAFTS = ("draft-03", "draft-04", "draft-06", "draft-07", "2019-09", NEWEST)
_OLD = ("draft-03", "draft-04", "draft-06", "draft-07")
_VALUES = ("const", "enum", "default", "example", "examples")  # what these hold are values and no schemas
_BY_NAME = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies")


def draft_of(root: Any) -> str | None:
    """Return the draft that a schema names ("draft-07", "2020-12"), or None if it names none."""
    named = root.get("$schema") if isinstance(root, Mapping) else None
    return next((draft for draft in _DRAFTS if draft in named), None) if isinstance(named, str) else None


def ref_stands_alone(draft: str | None) -> bool:
    """Whether the keywords beside `$ref` are ignored, as drafts before 2019-09 say."""
    return draft in _OLD


def keywords_of_ids(draft: str | None) -> tuple[str, ...]:
    """Return the keywords that give a schema its URI. In drafts after 4, "id" is none."""
    return ("$id", "id") if draft in (None, "draft-03", "draft-04") else ("$id",)


def schemas_within(root: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the objects that may be schemas, with their JSON pointers. Constants and examples are none."""
    pending: list[tuple[str, Any, bool]] = [("", root, False)]
    while pending:
        where, value, by_name = pending.pop()
        if isinstance(value, Mapping):
            if not by_name:
                yield where, value
            for key, each in value.items():
                if by_name or key not in _VALUES:
                    inner = not by_name and key in _BY_NAME and isinstance(each, Mapping)
                    pending.append((f"{where}/{str(key).replace('~', '~0').replace('/', '~1')}", each, inner))
        elif isinstance(value, (list, tuple)):
            pending += [(f"{where}/{index}", each, False) for index, each in enumerate(value)]


def without_drafts(schema: Any, by_name: bool = False) -> Any:
    """Return `schema` without the names of drafts in it. It recurses as deep as the schema."""
    if isinstance(schema, (list, tuple)):
        return [without_drafts(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    return {
        key: each if key in _VALUES and not by_name else without_drafts(each, not by_name and key in _BY_NAME)
        for key, each in schema.items()
        if by_name or key != "$schema"
    }
