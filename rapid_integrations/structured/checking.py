"""Check an answer with jsonschema for the rules that its grammar could not enforce. It needs the extra `structured`.

A schema may come from anybody, so nothing is fetched, and the time for patterns is bounded. Keywords of all drafts are
checked. What a draft says differently from the others follows the schema's "$schema".
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from time import monotonic
from typing import Any

from rapid_integrations.errors import MissingExtraError
from rapid_integrations.structured.deep_stack import on_a_deep_stack
from rapid_integrations.structured.drafts import NEWEST, draft_of, ref_stands_alone, without_drafts
from rapid_integrations.structured.formats import FORMATS
from rapid_integrations.structured.patterns import for_python, is_pattern
from rapid_integrations.structured.references import References
from rapid_integrations.structured.unevaluated import Evaluation

_MOST = 3  # problems that are reported
_LONGEST = 200  # characters of one
_SECONDS = 0.5  # for one pattern on one text
_ALL_SECONDS = 10.0  # for all patterns of an answer
# A value satisfies these if it does not satisfy something else.
_TURNING = ("not", "if", "anyOf", "oneOf", "contains", "unevaluatedProperties", "unevaluatedItems")

Check = Callable[[Any, Any, Any, Any], "Iterator[Any] | None"]


class _Undecided(Exception):
    """A rule that cannot be checked: a reference to elsewhere, or a pattern of another dialect."""


@dataclass
class _State:
    """What belongs to one check.

    Attributes:
        references: resolves what jsonschema cannot.
        until: when the time for patterns is over.
        turning: how many keywords of `_TURNING` are being checked, one within the other.
    """

    references: References
    until: float
    turning: int = 0


class _Local(threading.local):
    state: _State


_local = _Local()


def unmet(schema: Any, value: Any) -> list[str]:
    """Return the rules of `schema` that a JSON value does not satisfy: "/tags: [1, 1] has non-unique elements".

    A rule that cannot be checked (a `$ref` to elsewhere, a pattern of another dialect) counts as satisfied, and so does
    a `not`, `anyOf` or the like around it. The others are checked nevertheless.

    Raises:
        MissingExtraError: jsonschema is not installed.
    """
    return on_a_deep_stack(lambda: _unmet(schema, value))


def unenforced(schema: Any) -> tuple[str, ...]:
    """Return the rules of a JSON schema that no grammar can express."""
    from rapid_integrations.structured.grammar import enforceable_schema

    return enforceable_schema(schema)[0].unenforced


def _unmet(schema: Any, value: Any) -> list[str]:
    validator, registry = _validator(draft_of(schema) or NEWEST)
    schema = without_drafts(schema)  # jsonschema would go on with its own validator, and without bounds
    _local.state = _State(References(schema), monotonic() + _ALL_SECONDS)
    found: list[str] = []
    try:
        for error in validator(schema, registry=registry).iter_errors(value):
            where = "/".join(["", *map(str, error.absolute_path)]) or "/"
            found.append(f"{where}: {_shortened(error.message)}")
            if len(found) == _MOST:
                break
    except RecursionError:
        found.append("/: it is nested too deep to be checked")
    return found


def _shortened(message: str) -> str:
    """Return a message without its middle if it is long: the value stands first, and what is wrong with it last."""
    return message if len(message) <= _LONGEST else f"{message[: _LONGEST // 2]} ... {message[-_LONGEST // 2 :]}"


@cache
def _validator(draft: str) -> tuple[Any, Any]:
    """Return the validator for a draft, and a registry that fetches nothing."""
    try:
        import jsonschema
        import referencing
    except ImportError:
        raise MissingExtraError(feature="checking an answer against its JSON schema", extra="structured") from None
    newest = jsonschema.Draft202012Validator
    base = {
        "draft-04": jsonschema.Draft4Validator,
        "draft-06": jsonschema.Draft6Validator,
        "draft-07": jsonschema.Draft7Validator,
        "2019-09": jsonschema.Draft201909Validator,
    }.get(draft, newest)
    alone = ref_stands_alone(draft)
    checks = {keyword: _checkable(keyword, check) for keyword, check in _checks(jsonschema).items()}

    def applicable(schema: Any) -> Any:
        if alone and isinstance(schema.get("$ref"), str):
            return [("$ref", schema["$ref"])]
        return schema.items()

    validator = jsonschema.validators.create(
        meta_schema=base.META_SCHEMA,
        validators=checks,
        type_checker=newest.TYPE_CHECKER,
        id_of=base.ID_OF,
        applicable_validators=applicable,
    )
    return validator, referencing.Registry()


def _checkable(keyword: str, check: Check) -> Check:
    """Return a check that counts a rule as satisfied if it cannot be checked, and with it what turns its result."""

    def checked(validator: Any, given: Any, instance: Any, schema: Any) -> Iterator[Any]:
        state, turning = _local.state, keyword in _TURNING
        state.turning += turning
        try:
            found = list(check(validator, given, instance, schema) or ())
        except RecursionError:
            raise
        except Exception:  # the schema may be anything, and jsonschema takes well-formed ones for granted
            if state.turning > turning:
                raise
            found = []
        finally:
            state.turning -= turning
        yield from found

    return checked


def _checks(jsonschema: Any) -> dict[str, Check]:
    """Return the checks of all keywords."""
    failed, old = jsonschema.ValidationError, jsonschema.Draft7Validator.VALIDATORS
    evaluation = Evaluation(_found, _resolved)

    def null_allowed(check: Check) -> Check:
        def checked(validator: Any, given: Any, instance: Any, schema: Any) -> Iterator[Any]:
            if instance is None and schema.get("nullable") is True:  # OpenAPI 3.0
                return
            yield from check(validator, given, instance, schema) or ()

        return checked

    def reference(keyword: str) -> Check:
        def checked(validator: Any, given: Any, instance: Any, schema: Any) -> Iterator[Any]:
            target, onward = _resolved(validator, keyword, given)
            yield from onward.descend(instance, target, resolver=onward._resolver)

        return checked

    def pattern(validator: Any, given: Any, instance: Any, schema: Any) -> Iterator[Any]:
        if isinstance(instance, str) and not _found(given, instance):
            yield failed(f"{instance!r:.100} does not match {given!r:.80}")

    def form(validator: Any, given: Any, instance: Any, schema: Any) -> Iterator[Any]:
        if given == "regex" and isinstance(instance, str) and not is_pattern(instance):
            yield failed(f"{instance!r:.100} is no regular expression")
        expression = FORMATS.get(given.lower()) if isinstance(given, str) else None
        if expression is not None and isinstance(instance, str) and not _found(f"^(?:{expression})$", instance):
            yield failed(f"{instance!r:.100} is no {given}")

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
            if name in declared or any(_found(each, name) for each in patterns):
                continue
            if given is False:
                yield failed(f"the property {name!r:.80} is not declared")
            elif isinstance(given, Mapping):
                yield from validator.descend(value, given, path=name)

    def unevaluated(kind: Any, what: str) -> Check:
        def checked(validator: Any, given: Any, instance: Any, schema: Any) -> Iterator[Any]:
            if not isinstance(instance, kind):
                return
            others = {key: each for key, each in schema.items() if key != f"unevaluated{what}"}
            places: Any = instance if isinstance(instance, dict) else range(len(instance))
            known = evaluation.of(validator, instance, others)
            for place in places:
                if place not in known and not validator.evolve(schema=given).is_valid(instance[place]):
                    yield failed(f"{place!r:.80} is one of the unevaluated {what.lower()}, which the schema restricts")

        return checked

    def multiple_of(validator: Any, given: Any, instance: Any, schema: Any) -> Iterator[Any]:
        if isinstance(instance, bool) or not isinstance(instance, (int, float)) or not given:
            return
        if Fraction(str(instance)) % Fraction(str(given)):  # as it is written: 0.3 is a multiple of 0.1
            yield failed(f"{instance!r} is not a multiple of {given!r}")

    def beyond(bound: str, over: bool) -> Check:
        def checked(validator: Any, given: Any, instance: Any, schema: Any) -> Iterator[Any]:
            edge = schema.get(bound) if given is True else given  # draft 4 has a boolean beside the bound
            if isinstance(edge, bool) or not isinstance(edge, (int, float)):
                return
            if not isinstance(instance, bool) and isinstance(instance, (int, float)):
                if instance <= edge if over else instance >= edge:
                    yield failed(f"{instance!r} is not {'above' if over else 'below'} {edge!r}")

        return checked

    def items(validator: Any, given: Any, instance: Any, schema: Any) -> Iterator[Any]:
        which = (old if isinstance(given, (list, tuple)) else newest)["items"]  # a list: drafts before 2020-12
        yield from which(validator, given, instance, schema) or ()

    newest = jsonschema.Draft202012Validator.VALIDATORS
    nullable = ("type", "enum", "const", "anyOf", "oneOf", "allOf", "not")
    return {
        **newest,
        **{keyword: old[keyword] for keyword in ("dependencies", "additionalItems")},
        **{keyword: null_allowed(newest[keyword]) for keyword in nullable},
        "$ref": null_allowed(reference("$ref")),
        "$dynamicRef": null_allowed(reference("$dynamicRef")),
        "$recursiveRef": null_allowed(reference("$recursiveRef")),
        "pattern": pattern,
        "format": form,
        "patternProperties": pattern_properties,
        "additionalProperties": additional_properties,
        "unevaluatedProperties": unevaluated(dict, "Properties"),
        "unevaluatedItems": unevaluated(list, "Items"),
        "multipleOf": multiple_of,
        "exclusiveMinimum": beyond("minimum", True),
        "exclusiveMaximum": beyond("maximum", False),
        "items": items,
    }


def _resolved(validator: Any, keyword: str, reference: str) -> tuple[Any, Any]:
    """Return the target of a reference, and a validator at its place.

    Raises:
        _Undecided: it leads elsewhere.
    """
    from referencing.jsonschema import lookup_recursive_ref

    try:
        resolver = validator._resolver
        resolved = lookup_recursive_ref(resolver) if keyword == "$recursiveRef" else resolver.lookup(reference)
        target, resolver = resolved.contents, resolved.resolver
    except Exception:  # it leads nowhere, or something around it is malformed
        target, resolver = None, validator._resolver
    if not isinstance(target, (Mapping, bool)):
        target, resolver = _local.state.references.target(reference), validator._resolver
    if target is None:
        raise _Undecided(reference)
    return target, validator.evolve(schema=target, _resolver=resolver)


def _found(expression: Any, text: str) -> bool:
    """Return whether a pattern matches somewhere in `text`.

    Raises:
        _Undecided: that cannot be decided.
    """
    import regex  # a dependency of transformers; unlike `re`, it has a time limit

    left = min(_SECONDS, _local.state.until - monotonic())
    if not isinstance(expression, str) or left <= 0:
        raise _Undecided(expression)
    try:
        return regex.search(for_python(expression), text, flags=regex.V1, timeout=left) is not None
    except (regex.error, TimeoutError):
        raise _Undecided(expression) from None
