"""Check an answer with jsonschema for the rules that its grammar could not enforce. It needs the extra `structured`.

A schema may come from anybody, so nothing is fetched, and the time for a pattern is bounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Any

from rapid_integrations.errors import MissingExtraError
from rapid_integrations.structured.deep_stack import on_a_deep_stack

_MOST = 3  # problems that are reported
_SECONDS = 0.5  # for one pattern on one text


def unmet(schema: Any, value: Any) -> list[str]:
    """Return the rules of `schema` that a JSON value does not satisfy: "/tags: [1, 1] has non-unique elements".

    A rule that cannot be checked (a `$ref` to elsewhere, a pattern of another dialect) counts as satisfied.

    Raises:
        MissingExtraError: jsonschema is not installed.
    """
    return on_a_deep_stack(lambda: _unmet(schema, value))


def unenforced(schema: Any) -> tuple[str, ...]:
    """Return the rules of a JSON schema that no grammar can express."""
    from rapid_integrations.structured.grammar import enforceable_schema

    return enforceable_schema(schema)[0].unenforced


def _unmet(schema: Any, value: Any) -> list[str]:
    validator, registry, errors = _jsonschema()
    found: list[str] = []
    try:
        for error in validator(schema, registry=registry).iter_errors(value):
            where = "/".join(["", *map(str, error.absolute_path)]) or "/"
            found.append(f"{where}: {error.message:.200}")
            if len(found) == _MOST:
                break
    except errors:
        pass
    return found


@cache
def _jsonschema() -> tuple[Any, Any, tuple[type[Exception], ...]]:
    """Return the validator, a registry that fetches nothing, and the errors that both raise for an invalid schema."""
    try:
        import jsonschema
        import referencing
        import referencing.exceptions
        import referencing.jsonschema
    except ImportError:
        raise MissingExtraError(feature="checking an answer against its JSON schema", extra="structured") from None
    base = jsonschema.Draft202012Validator

    def null_allowed(check: Any) -> Any:
        def checked(validator: Any, given: Any, instance: Any, schema: Any) -> Iterator[Any]:
            if instance is None and schema.get("nullable") is True:  # OpenAPI 3.0
                return
            yield from check(validator, given, instance, schema) or ()

        return checked

    def failed(message: str) -> Any:
        return jsonschema.ValidationError(message)

    def pattern(validator: Any, given: Any, instance: Any, schema: Any) -> Iterator[Any]:
        if isinstance(instance, str) and _found(given, instance) is False:
            yield failed(f"{instance!r:.100} does not match {given!r:.80}")

    def pattern_properties(validator: Any, given: Any, instance: Any, schema: Any) -> Iterator[Any]:
        if isinstance(instance, dict) and isinstance(given, Mapping):
            for expression, inner in given.items():
                for name, value in instance.items():
                    if _found(expression, name):
                        yield from validator.descend(value, inner, path=name, schema_path=expression)

    def additional_properties(validator: Any, given: Any, instance: Any, schema: Any) -> Iterator[Any]:
        if not isinstance(instance, dict):
            return
        declared, patterns = schema.get("properties") or {}, schema.get("patternProperties") or {}
        for name, value in instance.items():
            if name in declared or any(_found(each, name) is not False for each in patterns):
                continue
            if given is False:
                yield failed(f"the property {name!r:.80} is not declared")
            elif isinstance(given, Mapping):
                yield from validator.descend(value, given, path=name)

    def multiple_of(validator: Any, given: Any, instance: Any, schema: Any) -> Iterator[Any]:
        if isinstance(instance, bool) or not isinstance(instance, (int, float)) or not given:
            return
        try:
            rest = Decimal(str(instance)) % Decimal(str(given))  # as it is written: 0.3 is a multiple of 0.1
        except InvalidOperation:
            return
        if rest:
            yield failed(f"{instance!r} is not a multiple of {given!r}")

    def beyond(bound: str, over: bool) -> Any:
        def checked(validator: Any, given: Any, instance: Any, schema: Any) -> Iterator[Any]:
            edge = schema.get(bound) if given is True else given  # draft 4 has a boolean beside the bound
            if isinstance(edge, bool) or not isinstance(edge, (int, float)):
                return
            if not isinstance(instance, bool) and isinstance(instance, (int, float)):
                if instance <= edge if over else instance >= edge:
                    yield failed(f"{instance!r} is not {'above' if over else 'below'} {edge!r}")

        return checked

    nullable = {
        keyword: null_allowed(base.VALIDATORS[keyword])
        for keyword in ("type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref", "not")
    }
    validator = jsonschema.validators.extend(
        base,
        {
            **nullable,
            "pattern": pattern,
            "patternProperties": pattern_properties,
            "additionalProperties": additional_properties,
            "multipleOf": multiple_of,
            "exclusiveMinimum": beyond("minimum", True),
            "exclusiveMaximum": beyond("maximum", False),
            # They match patterns with Python's own `re`, which can take forever.
            "unevaluatedProperties": lambda *_: None,
        },
    )
    errors = (
        referencing.exceptions.Unresolvable,
        jsonschema.exceptions.UnknownType,
        jsonschema.exceptions._WrappedReferencingError,
        RecursionError,
        TypeError,
        AttributeError,
        ValueError,
    )
    return validator, referencing.Registry(), errors


def _found(expression: Any, text: str) -> bool | None:
    """Return whether a pattern matches somewhere in `text`, or None if that cannot be decided."""
    import regex  # a dependency of transformers; unlike `re`, it has a time limit

    try:
        return regex.search(expression, text, timeout=_SECONDS) is not None
    except (regex.error, TypeError, TimeoutError):
        return None
