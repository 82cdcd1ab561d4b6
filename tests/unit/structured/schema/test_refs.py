"""References to what is false, unsatisfiable, elsewhere, or in a circle."""

import pytest

from rapid_integrations import ConfigurationError, StructuredOutput
from rapid_integrations.structured import grammar_of
from rapid_integrations.structured.checking import unmet
from rapid_integrations.structured.grammar import require_enforceable
from tests.toys.grammar_walk import is_written


def test_nothing_is_fetched_and_no_pattern_takes_for_ever():
    schema = {"not": {"$ref": "http://127.0.0.1:1/x"}, "type": "string"}
    assert unmet(schema, "a") == []
    found = require_enforceable({"type": "object", "properties": {"a": {"$ref": "https://example.com/x.json"}}})
    assert found.unenforced == ("/properties/a: $ref 'https://example.com/x.json', which leads nowhere in the schema",)
    assert unmet({"type": "string", "not": {"pattern": "^(a+)+$"}}, "a" * 50 + "b") == []


def test_a_definition_that_is_false_forbids_what_refers_to_it():
    schema = {"type": "object", "properties": {"a": {"$ref": "#/$defs/no"}, "b": {"$ref": "#/$defs/yes"}},
              "$defs": {"no": False, "yes": True}}  # fmt: skip
    asked = StructuredOutput(json_schema=schema)
    assert is_written(asked, '{"b": 1}') and not is_written(asked, '{"a": 1}')
    for nothing in ({"allOf": [True, False]}, {"$ref": "#/$defs/no", "$defs": {"no": False}}, {"enum": []}):
        with pytest.raises(ConfigurationError, match="(nothing satisfies|nsatisfiable)"):
            grammar_of(StructuredOutput(json_schema=nothing))


def test_a_definition_that_nothing_satisfies_forbids_what_refers_to_it():
    never = {"type": "object", "properties": {"x": {"type": "integer", "minimum": 3, "maximum": 2}}, "required": ["x"]}
    schema = {"type": "object", "properties": {"a": {"$ref": "#/definitions/never"}, "b": {"type": "integer"}},
              "definitions": {"never": never}}  # fmt: skip
    asked = StructuredOutput(json_schema=schema)
    assert is_written(asked, '{"b": 1}') and not is_written(asked, '{"a": {"x": 3}}')
    with pytest.raises(ConfigurationError, match="nsatisfiable.*\n.*processing /definitions/never"):
        grammar_of(StructuredOutput(json_schema={**schema, "required": ["a"]}))


def test_circles_with_siblings_are_enforced_without_them():
    schema = {"$ref": "#/definitions/a", "definitions": {
        "a": {"type": "object", "oneOf": [{"$ref": "#/definitions/b"}, {"$ref": "#/definitions/c"}]},
        "b": {"type": "object", "properties": {"k": {"const": "b"}, "a": {"type": "object", "oneOf": [
            {"$ref": "#/definitions/a"}]}}, "required": ["k"]},
        "c": {"type": "object", "oneOf": [{"$ref": "#/definitions/a"}], "properties": {"k": {"const": "c"}}},
    }}  # fmt: skip
    asked = StructuredOutput(json_schema=schema)
    assert any("beside" in each for each in grammar_of(asked).unenforced)
    assert is_written(asked, '{"k": "b", "a": {"k": "b"}}') and not is_written(asked, '{"k": "d"}')
