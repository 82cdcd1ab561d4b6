"""Convert a JSON schema: each schema within it step by step, and then those that its references lead to."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

from rapid_integrations.errors import ConfigurationError
from rapid_integrations.structured.bounds import MAX_DEFINITIONS, check_schema, too_much
from rapid_integrations.structured.drafts import draft_of, ref_stands_alone
from rapid_integrations.structured.references import References
from rapid_integrations.structured.schema.arrays import convert_array
from rapid_integrations.structured.schema.combinations import convert_combinations
from rapid_integrations.structured.schema.constants import convert_constants
from rapid_integrations.structured.schema.escapes import needs_code_points
from rapid_integrations.structured.schema.finite import some_answer_ends
from rapid_integrations.structured.schema.kinds import types_of
from rapid_integrations.structured.schema.left_out import LeftOut, leave_out_the_rest
from rapid_integrations.structured.schema.numbers import MAX_REMAINDERS, convert_numbers, remainders
from rapid_integrations.structured.schema.objects import close, convert_object
from rapid_integrations.structured.schema.refs import convert_references
from rapid_integrations.structured.schema.result import Enforceable, Schema
from rapid_integrations.structured.schema.strings import convert_strings


def enforceable(
    schema: Any,
    *,
    closed: bool = False,
    lenient: bool = False,
    given_up: Sequence[str] = (),
    nothing: Collection[str] = (),
) -> Enforceable:
    """Return the part of `schema` that can be enforced. It recurses as deep as the schema: run it `on_a_deep_stack`.

    Args:
        schema: a JSON schema of any draft, or something similar.
        closed: allow only declared properties at the top level.
        lenient: let a `$ref` to a missing place allow anything.
        given_up: further rules to leave out, from `GIVEN_UP`.
        nothing: JSON pointers of definitions that nothing satisfies.

    Raises:
        ConfigurationError: it is not a schema, is over a bound, holds a name that is not text, or nothing satisfies it.
    """
    check_schema(schema)
    return _Conversion(schema, lenient, LeftOut(given_up), frozenset(nothing)).result(schema, closed)


class _Conversion:
    """One conversion of a schema: what its steps need of the whole, and the definitions that it makes on the way.

    Args:
        root: the schema.
        lenient: let a `$ref` to a missing place allow anything.
        left_out: takes the rules that are left out.
        nothing: JSON pointers of definitions that nothing satisfies.
    """

    def __init__(self, root: Any, lenient: bool, left_out: LeftOut, nothing: Collection[str]) -> None:
        self._lenient = lenient
        self._left_out = left_out
        self._nothing = nothing
        self._references = References(root)
        self._ref_alone = ref_stands_alone(draft_of(root))
        self._steps = remainders(root) <= MAX_REMAINDERS
        self._formats: dict[str, dict[str, Any]] = {}  # formats of strings, each compiled once

    def result(self, root: Any, closed: bool) -> Enforceable:
        """Convert the whole schema."""
        schema = self._schema(root, "", outer="")
        if closed and isinstance(schema, dict):
            close(schema)
        definitions: dict[str, Schema] = {}
        places: dict[str, str] = {}
        while pending := self._references.pending():
            for name, where, target in pending:
                places[name] = where
                definitions[name] = self._schema(target, where, outer=self._references.base_at(where))
                if len(definitions) > MAX_DEFINITIONS:
                    how = f"refers to more than {MAX_DEFINITIONS:,} schemas"
                    raise too_much("the JSON schema", how, "Use fewer")
        definitions |= self._formats
        _check_that_answers_end(schema, definitions)
        if definitions and isinstance(schema, dict):
            schema["$defs"] = definitions
        if needs_code_points(schema):
            self._left_out.add("", "names that are spelled with escapes")
        return Enforceable(schema, tuple(dict.fromkeys(self._left_out.rules)), places)

    def _schema(self, given: Any, where: str, outer: str) -> Schema:
        """Convert one schema; `outer` is the URI to which the references of the schema around it are relative."""
        if isinstance(given, bool):
            return given
        if not isinstance(given, Mapping):
            raise ConfigurationError(
                f"the JSON schema is not a schema at {where or '/'}: a schema is an object, true or false; given: "
                f"{given!r:.100}"
            )
        if self._ref_alone and isinstance(given.get("$ref"), str):
            given = {key: given[key] for key in ("$ref", "nullable") if key in given}
        return self._converted(given, where, self._references.base_of(given, outer))

    def _converted(self, given: Mapping[str, Any], where: str, base: str) -> Schema:
        """Convert the keywords of one schema, whose references are relative to the URI `base`."""
        if given.get("not") is True or given.get("not") == {}:
            return False  # as drafts before 6 say it
        left_out, references = self._left_out, self._references
        within, followed = partial(self._schema, outer=base), partial(references.followed, base=base)
        out: dict[str, Any] = {}
        types = types_of(given, where)
        if types is not None:
            out["type"] = types[0] if len(types) == 1 else types
        convert_constants(given, out, where, left_out)
        convert_numbers(given, out, where, left_out, self._steps)
        patterns = convert_strings(given, out, where, left_out, followed)
        convert_array(given, out, where, within)
        convert_object(given, out, where, left_out, within, followed)
        beside = convert_combinations(given, out, where, left_out, within, followed)
        convert_references(
            given, out, beside, where, left_out, references, base, lenient=self._lenient, nothing=self._nothing
        )
        leave_out_the_rest(given, out, where, left_out)
        return self._joined(out, [*patterns, *beside], where, nullable=given.get("nullable") is True and types is None)

    def _joined(self, out: dict[str, Any], beside: list[Schema], where: str, nullable: bool) -> Schema:
        """Return one schema for what has to hold together."""
        if self._left_out.gives_up("beside anyOf") and "anyOf" in out and (len(out) > 1 or beside):
            self._left_out.add(where, "what stands beside anyOf or oneOf")
            out, beside = {"anyOf": out["anyOf"]}, []
        if False in beside:
            return False  # llguidance refuses a definition that is false, even of a property that may be left out
        if beside:
            out["allOf"] = [*out.get("allOf", []), *beside]
        if out.keys() == {"type", "pattern"} and out["type"] == "string" and out["pattern"].startswith("^(?:"):
            name = f"format{len(self._formats)}"
            known = next((known for known, each in self._formats.items() if each == out), name)
            self._formats[known] = out
            out = {"$ref": f"#/$defs/{known}"}
        return {"anyOf": [out, {"type": "null"}]} if nullable and out else out


def _check_that_answers_end(schema: Schema, definitions: Mapping[str, Schema]) -> None:
    """Raise ConfigurationError if no finite answer satisfies the converted schema."""
    if some_answer_ends(schema, definitions):
        return
    if some_answer_ends(schema, definitions, false_ends=True):
        raise ConfigurationError(
            "nothing satisfies the JSON schema: what it requires is false. Allow something in its place"
        )
    raise ConfigurationError(
        "the JSON schema asks for an endless answer: what it requires refers back to itself. Make one of the "
        "properties on the way optional, or nullable"
    )
