"""The grammar of arguments that a call does not write as one JSON object, in llguidance's variant of Lark.

A string stands between its marks as it is, so it cannot hold the mark that ends it. Its length and its fixed values are
enforced; other rules of strings are checked when the call is complete. Other values follow their schemas.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from rapid_integrations.structured.grammar import JSON_OPTIONS
from rapid_integrations.structured.schema import Enforceable
from rapid_integrations.tool_calls.tagged_types import referred

Literal: TypeAlias = Callable[[str], str]
"""Returns Lark for a text of the template."""

FREE_NAME = "FREE_NAME: /[a-zA-Z_][a-zA-Z0-9_.-]{0,63}/"
"""The rule for the name of an argument that no schema names."""

_LONGEST = 50_000  # characters of a string whose length is bounded; longer ones are checked
_SPREADING = ("$ref", "allOf", "anyOf", "oneOf", "patternProperties")


class ArgumentRules(ABC):
    """Writes the rules for the arguments of one tool.

    Args:
        number: the tool's, for the names of rules.
        literal: returns Lark for a text of the template.
        specials: tokens that stand for a whole string and never occur in text, by that string.
        by_name: whether arguments stand in the order of their names, and not in that of the schema.
    """

    between = ""  # the text between two arguments

    def __init__(self, number: int, literal: Literal, specials: Mapping[str, int], by_name: bool = False) -> None:
        self._number = number
        self._literal = literal
        self._specials = specials
        self._by_name = by_name
        self._rules: list[str] = []
        self._names = 0

    def rules(self, found: Enforceable) -> list[str]:
        """Return the rules; one of them is `arguments_NUMBER`."""
        root = found.schema
        self._members(f"arguments_{self._number}", resolved(root, root), root, self._argument, self.between)
        return self._rules

    @abstractmethod
    def unwritten(self, schema: Any, root: Any) -> set[str]:
        """Return the rules of a parameter's schema that the grammar leaves out."""

    @abstractmethod
    def _argument(self, name: str | None, schema: Any, root: Any) -> str:
        """Add the rules for an argument, of any name if `name` is None, and return what stands for it."""

    def _members(
        self, start: str, schema: Any, root: Any, argument: Callable[[str | None, Any, Any], str], between: str
    ) -> None:
        """Add the rule `start` for what a schema of an object names, and for others if it allows them."""
        if not names_its_members(schema):
            schema = {}
        between = self._literal(between)
        properties = dict(schema.get("properties") or {})
        required = set(schema.get("required") or ())
        for name in schema.get("required") or ():
            properties.setdefault(name, True)
        extra = "" if schema.get("additionalProperties") is False else argument(None, True, root)
        names = sorted(properties, key=str.lower) if self._by_name else list(properties)
        # Two rules for each place: whether an argument was written before, so that `between` comes first.
        first, later, end = f"{start}_first", f"{start}_later", len(names)
        for place, name in enumerate(names):
            written = argument(name, properties[name], root)
            behind = f"{later}_{place + 1}"
            begun, more = f"{written} {behind}", f"{between} {written} {behind}"
            if name not in required:
                begun, more = f"{begun} | {first}_{place + 1}", f"{more} | {behind}"
            self._rules += [f"{first}_{place}: {begun}", f"{later}_{place}: {more}"]
        self._rules += [
            f"{start}: {first}_0",
            f"{first}_{end}: " + (f"({extra} ({between} {extra})*)?" if extra else '""'),
            f"{later}_{end}: " + (f"({between} {extra})*" if extra else '""'),
        ]

    def _new(self, kind: str) -> str:
        """Return the name of a new rule."""
        self._names += 1
        return f"{kind}_{self._number}_{self._names}"

    def _string(self, schema: Any, core: str, end: str) -> str:
        """Return Lark for a string without `core` and the mark `end` behind it.

        A text and an ordinary text behind it are one terminal: apart, the first would take in the beginning of the
        second. A control token ends a text by itself.
        """
        low, high = lengths(schema)
        special = next((token for token in self._specials if token in end), None)
        before = end if special is None else end[: end.index(special)]
        rest = self._literal(end[len(before) :])
        form = anchored_pattern(schema)
        if not before and form is None:
            if high == 0:
                return rest
            low = max(low, 1)  # a terminal is not empty
        content = rf"(.|\n){{{low},{'' if high is None else high}}}" if form is None else f"({form})"
        behind = r"[ \t\r\n]*[^ \t\r\n](.|\n)*" if core in before else r"(.|\n)*"
        name = self._new("TEXT")
        self._rules.append(rf"{name}: /{content}{regex_of(before)}/ & ~/(.|\n)*{regex_of(core)}{behind}/")
        maybe = "?" if not before and form is None and not lengths(schema)[0] else ""
        return f"{name}{maybe} {rest}"


def unwritten_arguments(rules: ArgumentRules, found: Enforceable) -> Enforceable:
    """Return a tool's schema with what the grammar of its arguments leaves out added to what is checked afterwards."""
    root = found.schema
    schema = resolved(root, root)
    if not names_its_members(schema):
        return Enforceable(root, (*found.unenforced, "/: which arguments there are"))
    more = [
        f"/properties/{name}: {', '.join(left_out)}"
        for name, each in (schema.get("properties") or {}).items()
        if (left_out := sorted(rules.unwritten(each, root)))
    ]
    return Enforceable(root, (*found.unenforced, *more))


def names_its_members(schema: Any) -> bool:
    """Whether a schema of an object names the members itself, not through other schemas."""
    return isinstance(schema, Mapping) and not any(key in schema for key in _SPREADING)


def resolved(schema: Any, root: Any) -> Any:
    """Return the schema that a chain of `$ref`s ends at."""
    for _ in range(8):
        alone = isinstance(schema, Mapping) and schema.keys() - {"$defs"} == {"$ref"}
        target = referred(schema, root) if alone else None
        if target is None:
            break
        schema = target
    return schema


def fixed_values(schema: Any) -> list[Any] | None:
    """Return the only values that a schema allows, if it names them."""
    if not isinstance(schema, Mapping):
        return None
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    return list(values) if isinstance(values, (list, tuple)) and values else None


def lengths(schema: Any) -> tuple[int, int | None]:
    """Return the least and the greatest length of a string, as far as they are enforced."""
    if not isinstance(schema, Mapping):
        return 0, None
    low, high = schema.get("minLength", 0), schema.get("maxLength")
    return min(low, _LONGEST), None if high is None or high > _LONGEST else high


def too_long(schema: Mapping[str, Any]) -> set[str]:
    """Return the rules for lengths that are too large to be enforced."""
    return {key for key in ("minLength", "maxLength") if schema.get(key, 0) > _LONGEST}


def anchored_pattern(schema: Any) -> str | None:
    """Return the pattern of a whole string, as the schemas of formats have one, fit to stand between slashes.

    Other patterns may match a part, or hold what a text between marks cannot be tested for.
    """
    pattern = schema.get("pattern") if isinstance(schema, Mapping) else None
    if not isinstance(pattern, str) or not (pattern.startswith("^(?:") and pattern.endswith(")$")):
        return None
    if "minLength" in schema or "maxLength" in schema or "\n" in pattern:
        return None
    return re.sub(r"(?<!\\)/", r"\\/", pattern[1:-1])


def json_rule(schema: Any, root: Any) -> str:
    """Return a schema within `root` as one of its own, as the grammar holds it."""
    found = dict(schema) if isinstance(schema, Mapping) else {}
    if isinstance(root, Mapping) and "$defs" in root:
        found["$defs"] = root["$defs"]
    return "%json " + json.dumps({"x-guidance": JSON_OPTIONS, **found})


def regex_of(text: str) -> str:
    """Return a regular expression for exactly this text, fit to stand between slashes."""
    # Not re.escape: a backslash before "<" is a word boundary in Rust's syntax, and one is needed before the slash.
    special = r".^$*+?()[]{}|\/"
    return "".join("\\" + each if each in special else each for each in text).replace("\n", "\\n").replace("\t", "\\t")
