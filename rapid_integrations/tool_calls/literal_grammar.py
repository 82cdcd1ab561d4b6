"""The grammar of arguments that are literals."""

from __future__ import annotations

import json
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
_MOST_ITEMS = 1000  # more are checked
_WORDS = {"boolean": ("true", "false", "True", "False"), "null": ("null", "None")}
_COMMA, _COLON = '"," " "?', '":" " "?'
_LIMITS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_ENFORCED = {
    *("type", "enum", "const", "minLength", "maxLength", "title", "description", "items", "minItems", "maxItems"),
    *("properties", "required"),
    *("additionalProperties", "anyOf", "oneOf", "$ref", *_LIMITS),
}


class LiteralRules(ArgumentRules):
    """Writes the rules.

    Args:
        literals: how arguments are written.
        number, literal, specials: see `ArgumentRules`.
    """

    def __init__(self, literals: LiteralArguments, number: int, literal: Literal, specials: Mapping[str, int]) -> None:
        super().__init__(number, literal, specials, literals.by_name)
        self.between = literals.between
        self._literals = literals
        self._referred: dict[str, str] = {}
        self._anything = ""

    def unwritten(self, schema: Any, root: Any) -> set[str]:
        """Return the rules that the grammar leaves out."""
        return _left_out(schema, root, set())

    def _argument(self, name: str | None, schema: Any, root: Any) -> str:
        rule = self._new("argument")
        self._rules.append(f"{rule}: {self._named(name, self._literals.assign)} {self._value(schema, root)}")
        return rule

    def _named(self, name: str | None, assign: str) -> str:
        return f"FREE_NAME {self._literal(assign)}" if name is None else self._literal(name + assign)

    def _member(self, name: str | None, schema: Any, root: Any) -> str:
        """Add the rules for a member of a nested object, and return what stands for it."""
        rule, named = self._new("member"), self._named(name, ":")
        if self._literals.own_quote is None:
            key = self._of_type("string", {}, root) if name is None else self._constant(name)
            named = f"{key} {_COLON}"
        self._rules.append(f"{rule}: {named} {self._value(schema, root)}")
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
            return _either(self._constant(value) for value in values)
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
        own = self._literals.own_quote
        if of == "string":
            return self._quoted(schema) if own is None else f"{self._literal(own)} {self._string(schema, own, own)}"
        if own is None and of in _WORDS:
            return _either(self._literal(word) for word in _WORDS[of])
        rule, comma = self._new("value"), '","' if own is not None else _COMMA
        if of == "array":
            self._rules.append(f'{rule}: "[" {self._items(schema, root, comma)} "]"')
        elif of == "object":
            between = "," if own is not None else ", "
            self._members(f"{rule}_members", schema if names_its_members(schema) else {}, root, self._member, between)
            self._rules.append(f'{rule}: "{{" {rule}_members "}}"')
        else:
            limits = {key: value for key, value in schema.items() if key in _LIMITS}
            self._rules.append(f"{rule}: {json_rule({'type': of, **limits}, None)}")
        return rule

    def _items(self, schema: Mapping[str, Any], root: Any, comma: str) -> str:
        """Return Lark for what stands in an array."""
        low, high = min(schema.get("minItems", 0), _MOST_ITEMS), schema.get("maxItems")
        if high == 0:
            return ""
        item = self._value(schema.get("items", True), root)
        more = "" if high is None or high > _MOST_ITEMS else high - 1
        written = f"{item} ({comma} {item}){{{max(low - 1, 0)},{more}}}"
        return written if low else f"({written})?"

    def _quoted(self, schema: Any) -> str:
        """Return Lark for a string in either of Python's quotation marks, with the escapes that JSON knows, too."""
        low, high = lengths(schema)
        times = f"{{{low},{'' if high is None else high}}}"
        name = self._new("QUOTED")
        ways = (rf"{quote}([^{quote}\\\n]|\\[{quote}\\nrt]){times}{quote}" for quote in "'\"")
        self._rules.append(f"{name}: /{'|'.join(ways)}/")
        return name

    def _constant(self, value: Any) -> str:
        """Return Lark for one value."""
        if self._literals.own_quote is not None:
            return self._literal(self._literals.literal(value))
        ways = {json.dumps(value, ensure_ascii=False), repr(value)}
        return _either(self._literal(way) for way in sorted(ways))


def _either(ways: Any) -> str:
    return "(" + " | ".join(ways) + ")"


def _left_out(schema: Any, root: Any, seen: set[str]) -> set[str]:
    """Return the keywords of a schema, and of those within it, that the grammar leaves out."""
    if not isinstance(schema, Mapping):
        return set()
    found = (schema.keys() - _ENFORCED) | too_long(schema)  # a pattern, too: Python's quotation marks have escapes
    found |= {key for key in ("minItems", "maxItems") if schema.get(key, 0) > _MOST_ITEMS}
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
