"""Which properties and items of a value a schema has looked at, for `unevaluatedProperties` and `unevaluatedItems`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Evaluation:
    """Finds the properties of an object, or the items of an array, that a schema evaluates.

    Attributes:
        found: says whether a pattern matches a name.
        resolved: takes a validator of jsonschema, a keyword and its reference. Returns the target, and a validator at
            its place.
    """

    found: Callable[[Any, str], bool]
    resolved: Callable[[Any, str, str], tuple[Any, Any]]

    def of(self, validator: Any, value: Any, schema: Any) -> set[Any]:
        """Return the names of the properties, or the indexes of the items, that `schema` evaluates in `value`.

        Args:
            validator: of jsonschema, at the place of `schema`.
            value: an object or an array.
            schema: a schema that `value` satisfies, apart from what is to be found out.
        """
        if not isinstance(schema, Mapping):
            return set()
        own = self._names(value, schema) if isinstance(value, dict) else self._indexes(validator, value, schema)
        for inner, onward in self._applied(validator, value, schema):
            own |= self.of(onward, value, inner)
        return own

    def _names(self, value: dict[str, Any], schema: Mapping[str, Any]) -> set[Any]:
        if "additionalProperties" in schema or "unevaluatedProperties" in schema:
            return set(value)  # by one keyword or the other, or the value is invalid
        declared, patterns = schema.get("properties") or (), schema.get("patternProperties") or ()
        return {name for name in value if name in declared or any(self.found(pattern, name) for pattern in patterns)}

    def _indexes(self, validator: Any, value: list[Any], schema: Mapping[str, Any]) -> set[Any]:
        items = schema.get("items")
        tuples = isinstance(items, (list, tuple))  # drafts before 2020-12
        if "unevaluatedItems" in schema or ("additionalItems" in schema if tuples else items is not None):
            return set(range(len(value)))
        first = items if isinstance(items, (list, tuple)) else schema.get("prefixItems") or ()
        own = set(range(min(len(value), len(first))))
        if "contains" in schema and "2019-09" not in str(validator.META_SCHEMA.get("$schema")):
            inner = validator.evolve(schema=schema["contains"])
            own |= {index for index, item in enumerate(value) if inner.is_valid(item)}
        return own

    def _applied(self, validator: Any, value: Any, schema: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
        """Yield the schemas that apply to the same value and hold for it, each with its validator."""
        for keyword in ("$ref", "$dynamicRef", "$recursiveRef"):
            if isinstance(reference := schema.get(keyword), str):
                yield self.resolved(validator, keyword, reference)
        inner = [each for keyword in ("allOf", "anyOf", "oneOf") for each in schema.get(keyword) or ()]
        if "if" in schema:
            holds = validator.evolve(schema=schema["if"]).is_valid(value)
            inner += [schema["if"]] if holds else []
            inner += [schema[branch] for branch in ("then" if holds else "else",) if branch in schema]
        if isinstance(value, dict):
            for keyword in ("dependentSchemas", "dependencies"):
                inner += [each for name, each in (schema.get(keyword) or {}).items() if name in value]
        for each in inner:
            onward = validator.evolve(schema=each) if isinstance(each, Mapping) else None
            if onward is not None and onward.is_valid(value):
                yield each, onward
