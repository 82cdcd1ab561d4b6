"""The grammar of arguments that stand between marks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rapid_integrations.tool_calls.argument_rules import (
    ArgumentRules,
    Literal,
    anchored_pattern,
    fixed_values,
    json_rule,
    resolved,
    too_long,
)
from rapid_integrations.tool_calls.tagged import TaggedArguments
from rapid_integrations.tool_calls.tagged_types import kinds_of

_ENFORCED = {"type", "enum", "const", "minLength", "maxLength", "title", "description"}


class TaggedRules(ArgumentRules):
    """Writes the rules.

    Args:
        tagged: how arguments are written.
        number, literal, specials: see `ArgumentRules`.
    """

    def __init__(self, tagged: TaggedArguments, number: int, literal: Literal, specials: Mapping[str, int]) -> None:
        super().__init__(number, literal, specials)
        self.between = tagged.between
        self._tagged = tagged

    def unwritten(self, schema: Any, root: Any) -> set[str]:
        """Return the rules of strings that the grammar leaves out."""
        kinds = kinds_of(schema, root)
        schema = resolved(schema, root)
        if not isinstance(schema, Mapping) or not schema or "text" not in kinds:
            return set()
        if kinds != {"text"}:
            return {"which text"}
        if self._fixed(schema) is not None:
            return set()
        left_out = (schema.keys() - _ENFORCED) | too_long(schema) | (schema.keys() & {"enum", "const"})
        return left_out - {"pattern"} if anchored_pattern(schema) is not None else left_out

    def _argument(self, name: str | None, schema: Any, root: Any) -> str:
        tagged, rule = self._tagged, self._new("argument")
        opening = f"{self._literal(tagged.key)} FREE_NAME " if name is None else ""
        kinds = kinds_of(schema, root)

        def begins(mark: str) -> str:
            return opening + self._literal(mark) if name is None else self._literal(tagged.key + name + mark)

        ways = []
        if "text" in kinds:
            only = resolved(schema, root) if kinds == {"text"} else _strings_of(schema, root)
            ways.append(f"{begins(tagged.text)} {self._written(only)}")
        if "other" in kinds:
            ways.append(f"{begins(tagged.other)} {rule}_json {self._literal(tagged.end)}")
            self._rules.append(f"{rule}_json: {json_rule(_without_strings(schema), root)}")
        self._rules.append(f"{rule}: " + " | ".join(ways))
        return rule

    def _written(self, schema: Any) -> str:
        """Return Lark for a string by a schema of strings, and the mark behind it."""
        end, core = self._tagged.end, self._tagged.core
        if (values := self._fixed(schema)) is not None:
            return "(" + " | ".join(self._literal(value + end) for value in values) + ")"
        return self._string(schema, core, end)

    def _fixed(self, schema: Any) -> list[str] | None:
        """Return the only strings that a schema allows, if it names them and they can be told from what ends them."""
        values = fixed_values(schema)
        texts = [value for value in values or () if isinstance(value, str)]
        return texts if texts and not any(self._tagged.core in text for text in texts) else None


def _strings_of(schema: Any, root: Any) -> Any:
    """Return a parameter's schema for its values that are strings, {} if there are several."""
    schema = resolved(schema, root)
    if not isinstance(schema, Mapping):
        return {}
    options = schema.get("anyOf") or schema.get("oneOf")
    if isinstance(options, (list, tuple)):
        found = [each for each in options if "text" in kinds_of(each, root)]
        return resolved(found[0], root) if len(found) == 1 and kinds_of(found[0], root) == {"text"} else {}
    return {key: schema[key] for key in ("minLength", "maxLength") if key in schema}


def _without_strings(schema: Any) -> Any:
    """Return a parameter's schema for its values that are no strings."""
    if not isinstance(schema, Mapping) or not schema:
        return {"type": ["null", "boolean", "number", "array", "object"]}
    types = schema.get("type")
    if isinstance(types, (list, tuple)):
        return {**schema, "type": [each for each in types if each != "string"]}
    if isinstance(values := schema.get("enum"), (list, tuple)):
        return {**schema, "enum": [value for value in values if not isinstance(value, str)]}
    return schema
