"""The grammar of arguments that are literals."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from rapid_integrations.tool_calls.argument_rules import (
    ArgumentRules,
    Literal,
    fixed_values,
    json_rule,
    lengths,
    names_its_members,
    too_long,
)
from rapid_integrations.tool_calls.literals import LiteralArguments
from rapid_integrations.tool_calls.tagged_types import referred

_TYPES = ("string", "boolean", "null", "number", "integer", "array", "object")
_LIMITS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_ENFORCED = {
    *("type", "enum", "const", "minLength", "maxLength", "title", "description", "items", "properties", "required"),
    *("additionalProperties", "anyOf", "oneOf", "$ref", *_LIMITS),
}


class LiteralRules(ArgumentRules):
    """Writes the rules.

    Args:
        literals: how arguments are written.
        number, literal: see `ArgumentRules`.
    """

    def __init__(self, literals: LiteralArguments, number: int, literal: Literal) -> None:
        super().__init__(number, literal, literals.by_name)
        self.between = literals.between
        self._literals = literals
        self._referred: dict[str, str] = {}
        self._anything = ""

    def unwritten(self, schema: Any, root: Any) -> set[str]:
        """Return the rules that the grammar leaves out: none of JSON."""
        return set() if self._literals.own_quote is None else _left_out(schema, root, set())

    def _argument(self, name: str | None, schema: Any, root: Any) -> str:
        rule = self._new("argument")
        begin = self._named(name, self._literals.assign)
        if self._literals.own_quote is not None:
            self._rules.append(f"{rule}: {begin} {self._value(schema, root)}")
        else:
            self._rules += [f"{rule}: {begin} {rule}_json", f"{rule}_json: {json_rule(schema, root)}"]
        return rule

    def _named(self, name: str | None, assign: str) -> str:
        return f"FREE_NAME {self._literal(assign)}" if name is None else self._literal(name + assign)

    def _member(self, name: str | None, schema: Any, root: Any) -> str:
        """Add the rules for a member of a nested object, and return what stands for it."""
        rule = self._new("member")
        self._rules.append(f"{rule}: {self._named(name, ':')} {self._value(schema, root)}")
        return rule

    def _value(self, schema: Any, root: Any) -> str:
        """Add the rules for a value, and return what stands for it."""
        if isinstance(schema, Mapping) and (target := referred(schema, root)) is not None:
            place = str(schema["$ref"])
            if place not in self._referred:
                self._referred[place] = self._new("referred")
                self._rules.append(f"{self._referred[place]}: {self._value(target, root)}")
            return self._referred[place]
        if not isinstance(schema, Mapping) or not schema:
            return self._any(root)
        if (values := fixed_values(schema)) is not None:
            return _either(self._literal(self._literals.literal(value)) for value in values)
        options = schema.get("anyOf") or schema.get("oneOf")
        if isinstance(options, (list, tuple)) and options:
            return _either(self._value(each, root) for each in options)
        types = schema.get("type")
        types = types if isinstance(types, (list, tuple)) else [types]
        if any(each not in _TYPES for each in types):
            return self._any(root)
        return _either(self._of_type(each, schema, root) for each in types)

    def _any(self, root: Any) -> str:
        if not self._anything:
            self._anything = self._new("anything")
            of_type = partial(self._of_type, schema={}, root=root)
            self._rules.append(f"{self._anything}: {_either(of_type(each) for each in _TYPES if each != 'integer')}")
        return self._anything

    def _of_type(self, of: str, schema: Mapping[str, Any], root: Any) -> str:
        quote = self._literals.quote
        if of == "string":
            low, high = lengths(schema)
            text = "" if high == 0 else self._text(max(low, 1), high, quote) + ("" if low else "?")
            return f"{self._literal(quote)} {text} {self._literal(quote)}"
        rule = self._new("value")
        if of == "array":
            item = self._value(schema.get("items", True), root)
            empty = "" if schema.get("minItems") else "?"
            self._rules.append(f'{rule}: "[" ({item} ("," {item})*){empty} "]"')
        elif of == "object":
            self._members(f"{rule}_members", schema if names_its_members(schema) else {}, root, self._member, ",")
            self._rules.append(f'{rule}: "{{" {rule}_members "}}"')
        else:
            limits = {key: value for key, value in schema.items() if key in _LIMITS}
            self._rules.append(f"{rule}: {json_rule({'type': of, **limits}, None)}")
        return rule


def _either(ways: Any) -> str:
    return "(" + " | ".join(ways) + ")"


def _left_out(schema: Any, root: Any, seen: set[str]) -> set[str]:
    """Return the keywords of a schema, and of those within it, that the grammar leaves out."""
    if not isinstance(schema, Mapping):
        return set()
    found = (schema.keys() - _ENFORCED) | too_long(schema)
    inner = [schema.get("items"), *(schema.get("properties") or {}).values()]
    for keyword in ("anyOf", "oneOf"):
        inner += list(schema.get(keyword) or ())
    place = schema.get("$ref")
    if isinstance(place, str) and place not in seen:
        inner.append(referred(schema, root))
        seen.add(place)
        found |= {"what stands beside $ref"} if schema.keys() - {"$ref", "$defs"} else set()
    if schema.get("anyOf") and schema.keys() - {"anyOf", "title", "description"}:
        found.add("what stands beside anyOf")
    return found.union(*(_left_out(each, root, seen) for each in inner))
