"""Turn a caller's schema, regular expression or grammar into llguidance's notation."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from time import monotonic
from typing import Any

from rapid_integrations.config import StructuredOutput
from rapid_integrations.errors import ConfigurationError
from rapid_integrations.structured.bounds import check_grammar, check_regex, check_schema
from rapid_integrations.structured.deep_stack import on_a_deep_stack
from rapid_integrations.structured.library import json_schema_error, load_llguidance
from rapid_integrations.structured.schema import ESCAPES, GIVEN_UP, Enforceable, enforceable, needs_code_points

FEATURE = "structured output"

# White space in JSON is at most a line break and an indentation. Without a bound a model may emit white space until its
# tokens run out, and small ones do. A schema with options of its own ("x-guidance") keeps those.
JSON_OPTIONS: dict[str, Any] = {"whitespace_pattern": r"\n?[ \t]{0,16}"}
_SECONDS = 5.0  # after this time nothing more is given up
_REMEMBERED = 200_000  # characters of cached schemas; agents send the same ones with every request
_MAX_OPTION = 200  # characters of one of them
_MOST_NOTHING = 20  # definitions that nothing satisfies
_DEFINITION = re.compile(r"json-schema:///#/\$defs/(\w+)")
_NESTED_SCHEMA = re.compile(r"%json\s*(?=\{)")


@dataclass(frozen=True)
class Grammar:
    """A grammar, and the rules that it does not enforce.

    Attributes:
        text: the grammar in llguidance's notation.
        unenforced: rules of a JSON schema that it does not enforce. Answers are checked for them afterwards.
    """

    text: str
    unenforced: tuple[str, ...] = ()


def grammar_of(structured: StructuredOutput) -> Grammar:
    """Return the grammar. llguidance checks a regular expression or a grammar only when it compiles them.

    Raises:
        MissingExtraError: llguidance is not installed.
        ConfigurationError: a JSON schema is invalid or cannot be satisfied, or something is over a bound.
    """
    matcher = load_llguidance(FEATURE).LLMatcher
    if structured.regex is not None:
        check_regex(structured.regex)
        return Grammar(str(matcher.grammar_from_regex(structured.regex)))
    if structured.grammar is not None:
        check_grammar(structured.grammar)
        lark, unenforced = on_a_deep_stack(lambda: _with_enforceable_schemas(structured.grammar or ""))
        return Grammar(str(matcher.grammar_from_lark(lark)), unenforced)
    found = require_enforceable(structured.json_schema)
    schema = found.schema if isinstance(found.schema, dict) else {"anyOf": [found.schema]}
    text = with_options(schema, options_of(structured.json_schema))
    return Grammar(str(matcher.grammar_from_json_schema(text)), found.unenforced)


def require_enforceable(schema: Any) -> Enforceable:
    """Return the part of a JSON schema that can be enforced.

    Raises:
        ConfigurationError: it is not a schema, it is over a bound, or llguidance refuses the rest of it.
    """
    found, error = enforceable_schema(schema)
    if error:
        raise ConfigurationError(f"{FEATURE}: llguidance does not take the JSON schema: {error[:1000]}")
    return found


def enforceable_schema(schema: Any, *, closed: bool = False, lenient: bool = False) -> tuple[Enforceable, str]:
    """Return the part of a JSON schema that can be enforced, and llguidance's error about the whole, "" if none.

    Rules that llguidance refuses are given up one by one, unless nothing satisfies the schema.

    Raises:
        ConfigurationError: it is not a schema, or over a bound.
    """
    check_schema(schema)
    try:
        text = json.dumps(schema, sort_keys=False, default=repr)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"the JSON schema {str(schema)[:200]} is not JSON: {error}") from None
    if len(text) > _REMEMBERED:
        return on_a_deep_stack(lambda: _as_much_as_possible(schema, closed, lenient))
    return _enforceable(_Key(text, schema), closed, lenient)


class _Key:
    """A schema as a dictionary key, compared by its text."""

    def __init__(self, text: str, schema: Any) -> None:
        self.text, self.schema = text, schema

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)


@lru_cache(maxsize=64)
def _enforceable(key: _Key, closed: bool, lenient: bool) -> tuple[Enforceable, str]:
    return on_a_deep_stack(lambda: _as_much_as_possible(key.schema, closed, lenient))


def _as_much_as_possible(schema: Any, closed: bool, lenient: bool) -> tuple[Enforceable, str]:
    first: tuple[Enforceable, str] | None = None
    until = monotonic() + _SECONDS
    nothing: set[str] = set()
    count = 0
    while count <= len(GIVEN_UP):
        try:
            found = enforceable(schema, closed=closed, lenient=lenient, given_up=GIVEN_UP[:count], nothing=nothing)
        except ConfigurationError:
            if first is None:
                raise
            break  # the rest has no answer either: the first error says why
        error = json_schema_error(found.schema) if isinstance(found.schema, dict) else ""
        if not error:
            return found, "" if found.schema is not False else "it is false, which nothing satisfies"
        places = [found.places.get(name, "") for name in _DEFINITION.findall(error)]
        first = first or (found, _with_places(error, found.places))
        if monotonic() > until:
            break
        if "nsatisfiable" not in error:
            count += 1
        elif places and places[0] and places[0] not in nothing and len(nothing) < _MOST_NOTHING:
            nothing.add(places[0])  # the library refuses such a definition even of a property that may be left out
        else:
            break
    assert first is not None
    return first


def _with_places(error: str, places: Mapping[str, str]) -> str:
    """Return an error of the library that names the caller's definitions."""
    return _DEFINITION.sub(lambda match: places.get(match[1]) or match[0], error)


def options_of(schema: Any) -> dict[str, Any]:
    """Return the options for llguidance that a schema brings ("x-guidance"), or ours.

    Raises:
        ConfigurationError: they are not a JSON object, or too long.
    """
    given = schema.get("x-guidance") if isinstance(schema, Mapping) else None
    if given is None:
        return JSON_OPTIONS
    fine = isinstance(given, Mapping) and all(
        isinstance(value, (bool, str, type(None))) and len(str(value)) <= _MAX_OPTION for value in given.values()
    )
    if not fine:
        raise ConfigurationError(
            f'"x-guidance" holds options of llguidance, each true, false or a text of at most {_MAX_OPTION} '
            f"characters; given: {str(given)[:200]}"
        )
    return dict(given)


def with_options(schema: Mapping[str, Any], options: Mapping[str, Any] = JSON_OPTIONS) -> str:
    """Return an enforceable schema with options for llguidance, as JSON."""
    escapes = {} if needs_code_points(dict(schema)) else {"json_allowed_escapes": ESCAPES}
    return json.dumps({"x-guidance": {**escapes, **options}, **schema})


def _with_enforceable_schemas(lark: str) -> tuple[str, tuple[str, ...]]:
    """Return a Lark grammar whose JSON schemas are reduced to their enforceable part, and the other rules."""
    unenforced: list[str] = []
    parts: list[str] = []
    position = 0
    for match in _NESTED_SCHEMA.finditer(lark):
        if match.start() < position:
            continue
        try:
            schema, end = json.JSONDecoder().raw_decode(lark, match.end())
        except (ValueError, RecursionError):
            continue  # in a string or a comment, or llguidance reports the error
        found = enforceable(schema)
        unenforced += found.unenforced
        options = options_of(schema) if "x-guidance" in schema else {}
        text = with_options(found.schema, options) if isinstance(found.schema, dict) else json.dumps(found.schema)
        parts += [lark[position : match.end()], text]
        position = end
    return "".join([*parts, lark[position:]]), tuple(unenforced)
