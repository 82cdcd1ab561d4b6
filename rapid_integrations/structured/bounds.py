"""Bounds of schemas, regular expressions and grammars, checked before the grammar library sees them.

llguidance recurses over what it compiles, and some of it grows faster than its text. Each bound leaves room for the
largest schemas in use (FHIR has 700 definitions). It stays far below what crashes the process or takes minutes. The
figures are in docs/structured-output.md. None of the checks recurses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rapid_integrations.errors import ConfigurationError

MAX_DEPTH = 100
"""Maximum nesting of a schema: objects and arrays within one another, as JSON."""

MAX_VALUES = 100_000
"""Maximum number of a schema's values: objects, arrays, strings and numbers."""

MAX_SCHEMA_TEXT = 8_000_000
"""Maximum length of all keys and strings of a schema together, in characters."""

MAX_NAME = 1_000
"""Maximum length of the name of a property or a tool, in characters."""

MAX_PROPERTIES = 2_000
"""Maximum number of properties of one object."""

MAX_OPTIONS = 10_000
"""Maximum number of entries of one anyOf, oneOf, allOf or prefixItems, constants not counted."""

MAX_DEFINITIONS = 5_000
"""Maximum number of schemas that $ref points to."""

MAX_REGEX = 100_000
"""Maximum length of a regular expression, in characters."""

MAX_NESTED_GROUPS = 200
"""Maximum nesting of groups in a regular expression, or of brackets in a grammar."""

MAX_GRAMMAR = 200_000
"""Maximum length of a Lark grammar, in characters."""

MAX_INTERSECTIONS = 10
"""Maximum number of operators "&" and "~" in a Lark grammar. Their automata multiply (20 take 12 seconds)."""

MAX_RULES = 5_000
"""Maximum number of rules of a Lark grammar (roughly its lines)."""

_SURROGATE = re.compile("[\ud800-\udfff]")


def check_schema(schema: Any, what: str = "the JSON schema") -> None:
    """Check depth, count and text of a JSON schema.

    Raises:
        ConfigurationError: the schema is over a bound, or a name in it is too long.
    """
    values = text = 0
    pending: list[tuple[Any, int]] = [(schema, 1)]
    while pending:
        value, depth = pending.pop()
        values += 1
        if isinstance(value, str):
            text += len(value)
        elif isinstance(value, Mapping):
            text += sum(len(key) for key in value if isinstance(key, str))
            pending += [(each, depth + 1) for each in value.values()]
        elif isinstance(value, (list, tuple)):
            pending += [(each, depth + 1) for each in value]
        if depth > MAX_DEPTH:
            raise too_much(what, f"is nested more than {MAX_DEPTH} levels deep", "Flatten it, or use $ref")
        if values > MAX_VALUES:
            raise too_much(what, f"has more than {MAX_VALUES:,} values", "Split it")
        if text > MAX_SCHEMA_TEXT:
            raise too_much(what, f"has more than {MAX_SCHEMA_TEXT:,} characters", "Split it, or shorten its texts")


def check_options(keyword: str, schemas: Sequence[Any], where: str) -> None:
    """Check how many schemas a keyword holds in the schema at the JSON pointer `where`.

    Raises:
        ConfigurationError: there are too many.
    """
    if len(schemas) > MAX_OPTIONS:
        how = f"has {len(schemas):,} entries at {where}/{keyword}; {MAX_OPTIONS:,} are the most"
        raise too_much("the JSON schema", how, "Use fewer, or enum for constants")


def check_regex(pattern: str) -> None:
    """Check length and nesting of a regular expression.

    Raises:
        ConfigurationError: it is over a bound, or holds half of a surrogate pair.
    """
    _check_text(pattern, "the regular expression", MAX_REGEX)
    _check_nesting(pattern, "the regular expression")


def check_grammar(grammar: str) -> None:
    """Check length, rules and nesting of a Lark grammar.

    Raises:
        ConfigurationError: it is over a bound, or holds half of a surrogate pair.
    """
    _check_text(grammar, "the grammar", MAX_GRAMMAR)
    rules = sum(1 for line in grammar.splitlines() if ":" in line)
    if rules > MAX_RULES:
        raise too_much("the grammar", f"has {rules:,} rules; {MAX_RULES:,} are the most", "Use fewer")
    intersections = grammar.count("&") + grammar.count("~")
    if intersections > MAX_INTERSECTIONS:
        how = f"has {intersections:,} operators '&' and '~'; {MAX_INTERSECTIONS} are the most"
        raise too_much("the grammar", how, "Write the expressions out")
    _check_nesting(grammar, "the grammar")


def half_character(text: str) -> int | None:
    """Return the position of half a surrogate pair, which has no bytes, or None if there is none."""
    match = _SURROGATE.search(text)
    return None if match is None else match.start()


def no_text(where: str, text: str, at: int) -> ConfigurationError:
    """Return the error for a string that holds half of a surrogate pair."""
    return ConfigurationError(
        f"{where} is not text: character {at} of {text[: at + 20]!r:.100} is half of a surrogate pair. Decode it "
        "with the encoding that it was written in, or drop that character"
    )


def too_much(what: str, how: str, way_out: str) -> ConfigurationError:
    """Return the error for something that is over a bound."""
    return ConfigurationError(f"{what} {how}. {way_out}, or describe it in the prompt and check the answer yourself")


def _check_text(text: str, what: str, most: int) -> None:
    if len(text) > most:
        raise too_much(what, f"has {len(text):,} characters; {most:,} are the most", "Shorten it")
    if (at := half_character(text)) is not None:
        raise no_text(what, text, at)


def _check_nesting(text: str, what: str) -> None:
    depth, escaped = 0, False
    for character in text:
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif character in "([{":
            depth += 1
            if depth > MAX_NESTED_GROUPS:
                raise too_much(what, f"has more than {MAX_NESTED_GROUPS} brackets within one another", "Flatten it")
        elif character in ")]}":
            depth = max(depth - 1, 0)
