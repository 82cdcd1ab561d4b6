"""The check of whole answers: each draft's keywords, and what cannot be checked takes nothing else with it."""

import json
import time

import pytest

from rapid_integrations import IncompleteOutputError
from rapid_integrations.structured.checking import unmet
from rapid_integrations.structured.held import Held

D4, D7 = "http://json-schema.org/draft-04/schema#", "http://json-schema.org/draft-07/schema#"
D2019, D2020 = "https://json-schema.org/draft/2019-09/schema", "https://json-schema.org/draft/2020-12/schema"
OPEN = {"properties": {"a": True}}
# schema, a value that satisfies it, and one that does not
CHECKED = {
    "dependencies, names": ({"dependencies": {"a": ["b"]}}, {"a": 1, "b": 1}, {"a": 1}),
    "dependencies, a schema": ({"dependencies": {"a": {"minProperties": 2}}}, {"a": 1, "b": 1}, {"a": 1}),
    "items, a list": ({"items": [{"type": "integer"}]}, [1, "x"], ["x"]),
    "additionalItems": ({"items": [{}], "additionalItems": {"type": "null"}}, [1, None], [1, 2]),
    "prefixItems": ({"prefixItems": [{"type": "integer"}]}, [1, "x"], ["x"]),
    "exclusiveMinimum of draft 4": ({"minimum": 3, "exclusiveMinimum": True}, 4, 3),
    "multipleOf beyond a double": ({"multipleOf": 7}, 7 * 10**40, 7 * 10**40 + 1),
    "multipleOf, decimal": ({"multipleOf": 0.1}, 0.3, 0.35),
    "minContains": ({"contains": {"const": 1}, "minContains": 2}, [1, 1], [1]),
    "propertyNames": ({"propertyNames": {"pattern": "^a"}}, {"ab": 1}, {"b": 1}),
    "format": ({"format": "date"}, "2020-02-29", "2021-02-29"),
    "unevaluatedProperties": ({"allOf": [OPEN], "unevaluatedProperties": False}, {"a": 1}, {"b": 1}),
    "unevaluatedProperties, if": (
        {"if": OPEN, "then": {"properties": {"b": True}}, "unevaluatedProperties": False}, {"a": 1, "b": 1}, {"c": 1},
    ),
    "unevaluatedProperties, $ref": (
        {"$ref": "#/$defs/o", "$defs": {"o": OPEN}, "unevaluatedProperties": {"type": "null"}}, {"a": 1, "b": None},
        {"a": 1, "b": 1},
    ),
    "unevaluatedProperties, patterns": (
        {"patternProperties": {"^x": True}, "unevaluatedProperties": False}, {"xa": 1}, {"a": 1},
    ),
    "unevaluatedProperties, another branch": (
        {"anyOf": [{**OPEN, "required": ["a"]}, {"properties": {"b": True}, "required": ["b"]}],
         "unevaluatedProperties": False}, {"a": 1}, {"a": 1, "c": 1},
    ),
    "unevaluatedItems": ({"prefixItems": [True], "unevaluatedItems": False}, [1], [1, 2]),
    "unevaluatedItems, contains": ({"contains": {"type": "null"}, "unevaluatedItems": False}, [None], [None, 1]),
    "unevaluatedItems, 2019-09": (
        {"$schema": D2019, "items": [True], "contains": {"type": "null"}, "unevaluatedItems": {"type": "integer"}},
        [None, 1], [0, None],
    ),
    "$dynamicRef": (
        {"$id": "http://x/root", "$ref": "list", "$defs": {
            "words": {"$dynamicAnchor": "item", "type": "string"},
            "list": {"$id": "list", "items": {"$dynamicRef": "#item"}, "$defs": {"any": {"$dynamicAnchor": "item"}}},
        }}, ["a"], [1],
    ),
    "an id within": (
        {"$id": "http://x/a", "$ref": "b", "$defs": {"b": {"$id": "b", "$ref": "#/$defs/c",
                                                             "$defs": {"c": {"type": "null"}}}}}, None, 1,
    ),
    "a metaschema": ({"$ref": D7}, {"type": "string"}, {"type": 3}),
    "beside $ref, today": ({"$ref": "#/$defs/a", "$defs": {"a": True}, "uniqueItems": True}, [1], [1, 1]),
    "\\d as in ECMA-262": ({"pattern": r"^\d$"}, "1", "\u0967"),
    "\\w as in ECMA-262": ({"pattern": r"^\w$"}, "a", "\u00e9"),
    "\\s as in ECMA-262": ({"pattern": r"^\s$"}, "\ufeff", "\x1c"),
    "$ as in ECMA-262": ({"pattern": "^a$"}, "a", "a\n"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHECKED)
def test_what_is_checked(name):
    schema, right, wrong = CHECKED[name]
    assert unmet(schema, right) == [] and len(unmet(schema, wrong)) == 1


def test_what_stands_beside_a_reference_follows_the_draft():
    schema = {"$ref": "#/definitions/a", "definitions": {"a": {"type": "array"}}, "uniqueItems": True}
    assert len(unmet(schema, [1, 1])) == 1
    for draft in (D4, D7, D7.removesuffix("#")):
        assert unmet({"$schema": draft, **schema}, [1, 1]) == [] and len(unmet({"$schema": draft, **schema}, 1)) == 1
    for draft in (D2019, D2020, "http://example.com/of-ours"):
        assert len(unmet({"$schema": draft, **schema}, [1, 1])) == 1


# Each of these cannot be decided, or is malformed.
UNDECIDED = {
    "a reference to elsewhere": {"$ref": "http://127.0.0.1:1/x"},
    "a reference to nothing": {"$ref": "#/nowhere"},
    "a pattern of another dialect": {"pattern": "(?<"},
    "an unknown type": {"type": "strin"},
    "a text for a number": {"minLength": "3"},
}  # fmt: skip


@pytest.mark.parametrize("name", UNDECIDED)
def test_what_cannot_be_checked_takes_nothing_else_with_it(name):
    odd = UNDECIDED[name]
    assert unmet(odd, "a") == []
    for around in ({"not": odd}, {"oneOf": [odd, {"type": "string"}]}, {"if": odd, "then": False, "else": False}):
        assert unmet(around, "a") == []  # nobody knows
    for beside in ({**odd, "maxLength": 2}, {"maxLength": 2, **odd}, {"allOf": [odd, {"maxLength": 2}]}):
        assert len(unmet(beside, "abc")) == 1
    assert len(unmet({"items": odd, "uniqueItems": True}, ["a", "a"])) == 1
    assert len(unmet({"properties": [], "dependentSchemas": [1], "minProperties": 2}, {"a": 1})) == 1
    assert len(unmet({"properties": {"a": odd, "b": {"const": 1}}}, {"a": "a", "b": 2})) == 1


def test_a_draft_within_the_schema_changes_no_bound():
    """jsonschema goes on with its own validator there, whose patterns may take for ever."""
    inner = {"$schema": D7, "type": "string", "not": {"pattern": "^(a|a)+$"}}
    schema = {"$schema": D2020, "properties": {"$schema": {"type": "string"}, "a": inner, "b": {"$ref": "#"}}}
    began = time.monotonic()
    assert unmet(schema, {"$schema": "x", "a": "a" * 60 + "b", "b": {"a": "a" * 60 + "b"}}) == []
    assert time.monotonic() - began < 5
    assert len(unmet({"properties": {"a": {"$schema": D7, "const": {"$schema": 1}}}}, {"a": {}})) == 1


def test_the_time_of_all_patterns_is_bounded(monkeypatch):
    monkeypatch.setattr("rapid_integrations.structured.checking._ALL_SECONDS", 0.3)
    schema = {"items": {"pattern": r"^(?:x|x\b|xx)+$"}, "uniqueItems": True}
    began = time.monotonic()
    found = unmet(schema, ["x" * 60 + "!"] * 200)
    assert time.monotonic() - began < 10
    assert any("non-unique" in each for each in found)


def test_deep_answers_are_no_crash_and_not_passed_over():
    schema = {"$ref": "#/$defs/a", "$defs": {"a": {"items": {"$ref": "#/$defs/a"}, "uniqueItems": True}}}
    assert unmet(schema, json.loads("[" * 20 + "]" * 20)) == []
    assert unmet(schema, json.loads("[" * 800 + "]" * 800)) == ["/: it is nested too deep to be checked"]


@pytest.mark.parametrize("text", ["1" * 5000, "[" * 200_000])
def test_what_python_cannot_read_is_an_error_of_ours(text):
    with pytest.raises(IncompleteOutputError, match="cannot be read to be checked"):
        Held(schema={"multipleOf": 3}).check(text)
