"""JSON schemas as OpenAPI, MCP tools and the drafts write them: nothing that people write is refused."""

import json
from typing import Any

import jsonschema
import pytest

from rapid_integrations import ConfigurationError, IncompleteOutputError, SamplingParams, StructuredOutput
from rapid_integrations.structured import grammar_of
from rapid_integrations.structured.checking import unmet
from rapid_integrations.structured.grammar import require_enforceable
from tests.toys.grammar_walk import is_written, random_answer
from tests.toys.structured_requests import PROMPT, engine

WRITTEN = {
    "openapi formats": {
        "type": "object",
        "required": ["a", "b", "c", "d", "e", "f", "g"],
        "additionalProperties": False,
        "properties": {
            "a": {"type": "integer", "format": "int32", "example": 3, "xml": {"name": "A"}},
            "b": {"type": "number", "format": "double", "examples": [1]},
            "c": {"type": "string", "format": "byte", "externalDocs": {"url": "https://x"}},
            "d": {"type": "string", "format": "binary", "deprecated": True, "readOnly": True, "maxLength": 5},
            "e": {"type": "string", "format": "password", "writeOnly": True, "maxLength": 5},
            "f": {"type": "string", "format": "no-such-format", "x-anything": [1, {"y": None}], "maxLength": 5},
            "g": {"type": "integer", "format": "int64", "minimum": 0},
        },
    },
    "nullable": {"type": "string", "enum": ["a"], "nullable": True},
    "nullable reference": {"nullable": True, "$ref": "#/components/schemas/A",
                           "components": {"schemas": {"A": {"type": "boolean"}}}},
    "all of": {"allOf": [{"$ref": "#/definitions/Base"}, {"type": "object", "properties": {"b": {"type": "boolean"}},
                                                          "required": ["b"]}],
               "definitions": {"Base": {"type": "object", "properties": {"a": {"type": "integer"}},
                                        "required": ["a"]}}},
    "discriminator": {"oneOf": [{"$ref": "#/$defs/C"}, {"$ref": "#/$defs/D"}],
                      "discriminator": {"propertyName": "k", "mapping": {"c": "#/$defs/C"}},
                      "$defs": {name: {"type": "object", "properties": {"k": {"const": name}}, "required": ["k"],
                                       "additionalProperties": False} for name in ("C", "D")}},
    "unique items, no": {"type": "array", "items": {"type": "integer"}, "uniqueItems": False, "maxItems": 3},
    "additional, by schema": {"type": "object", "additionalProperties": {"type": "boolean"}, "maxProperties": 2},
    "pattern properties": {"type": "object", "patternProperties": {"^x-": {"type": "null"}, "^y": {"type": "boolean"}},
                           "additionalProperties": False},
    "draft 4": {"$schema": "http://json-schema.org/draft-04/schema#", "id": "http://x/y", "type": "object",
                "properties": {"a": {"type": "number", "minimum": 0, "exclusiveMinimum": True, "maximum": 9}},
                "required": ["a"], "additionalProperties": False},
    "tuple of draft 7": {"type": "array", "items": [{"type": "boolean"}, {"type": "null"}], "additionalItems": False,
                         "minItems": 2},
    "by id": {"$id": "https://example.com/root", "$ref": "https://example.com/root#/$defs/a",
              "$defs": {"a": {"$ref": "#b"}, "c": {"$anchor": "b", "type": "boolean"}}},
    "escaped pointer": {"$ref": "#/$defs/a~1b%20c", "$defs": {"a/b c": {"type": "null"}}},
    "recursive beside others": {"$ref": "#/$defs/n", "$defs": {"n": {
        "type": "object", "properties": {"next": {"$ref": "#/$defs/n", "type": "object", "description": "on"}},
        "additionalProperties": False}}},
    "types of others": {"type": "object", "required": ["a", "b", "c"], "additionalProperties": False,
                        "properties": {"a": {"type": "int"}, "b": {"type": "bool"}, "c": {"type": "any", "enum": [1]}}},
    "required, as draft 3 has it": {"type": "object", "properties": {"a": {"type": "boolean", "required": True}},
                                    "additionalProperties": False},
    "empty lists for objects": {"type": "object", "properties": [], "required": [], "additionalProperties": False},
    "minItems as a float": {"type": "array", "items": {"type": "null"}, "minItems": 2.0, "maxItems": 3.0},
    "numbers as text": {"type": "integer", "minimum": "3", "maximum": 50},
    "password": {"type": "string", "pattern": r"^(?=.*[A-Z])(?=.*\d)[A-Za-z\d]{8,12}$"},
    "encoded": {"type": "string", "contentEncoding": "base64", "maxLength": 8},
    "boolean": {"type": "object", "properties": {"a": True, "b": False}, "additionalProperties": False},
    "date or time": {"anyOf": [{"type": "string", "format": "date"}, {"type": "string", "format": "time"}]},
}  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_what_people_write_is_enforced_whole(name):
    asked = StructuredOutput(json_schema=WRITTEN[name])
    if name != "numbers as text" and name != "recursive beside others":
        assert grammar_of(asked).unenforced == ()
    ended = 0
    for seed in range(4):
        text = random_answer(asked, seed)
        if text is not None:
            assert unmet(WRITTEN[name], json.loads(text)) == []
            ended += 1
    assert ended


LEFT_OUT = {
    "uniqueItems": ({"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, [1, 2], [1, 1]),
    "not": ({"type": "string", "not": {"enum": ["x"]}}, "y", "x"),
    "contains": ({"type": "array", "contains": {"const": 1}, "items": {"type": "integer"}}, [2, 1], [2]),
    "if": ({"type": "object", "if": {"required": ["a"]}, "then": {"required": ["b"]}}, {"a": 1, "b": 2}, {"a": 1}),
    "dependentRequired": ({"type": "object", "dependentRequired": {"a": ["b"]}}, {"a": 1, "b": 2}, {"a": 1}),
    "oneOf": ({"oneOf": [{"type": "integer"}, {"type": "number", "minimum": 5}]}, 1, 7),
    "pattern": ({"type": "string", "pattern": r"(a)\1"}, "aa", "ab"),
    "multipleOf": ({"type": "integer", "multipleOf": 99999989}, 99999989, 3),
    "propertyNames": ({"type": "object", "properties": {"ab": {}}, "propertyNames": {"pattern": "^a"}}, {"ab": 1},
                      {"b": 1}),
    "minProperties": ({"type": "object", "properties": {"a": {}, "b": {}, "c": {}}, "minProperties": 2},
                      {"a": 1, "b": 1}, {"a": 1}),
    "minimum": ({"type": "integer", "minimum": 10**400}, 10**400, 3),
    "const": ({"const": 10**40}, 10**40, 3),
    "enum": ({"enum": [1, 1e308]}, 1e308, 2),
    "maximum": ({"type": "number", "maximum": 1e300}, 1e200, 1.5e300),
}  # fmt: skip


@pytest.mark.parametrize("keyword", LEFT_OUT)
def test_what_no_grammar_says_is_left_out_said_and_checked(keyword):
    schema, right, wrong = LEFT_OUT[keyword]
    found = require_enforceable({"type": "object", "properties": {"a/b": schema}})
    assert len(found.unenforced) == 1
    assert found.unenforced[0].startswith("/properties/a~1b: ") and keyword in found.unenforced[0]
    assert unmet(schema, right) == [] and len(unmet(schema, wrong)) == 1
    jsonschema.validate(right, schema)
    assert random_answer(StructuredOutput(json_schema={"type": "object", "properties": {"a": schema}}), 1) is not None


def test_an_answer_that_does_not_satisfy_the_rest_is_an_error():
    schema = {"type": "array", "items": {"const": 1}, "minItems": 2, "maxItems": 2, "uniqueItems": True}
    sampling = SamplingParams(structured=StructuredOutput(json_schema=schema), max_new_tokens=90)
    with pytest.raises(IncompleteOutputError, match=r"non-unique.*ask again.*The answer: \["):
        engine().generate(PROMPT, sampling=sampling)
    with pytest.raises(IncompleteOutputError), engine().stream(PROMPT, sampling=sampling) as stream:
        shown = "".join(chunk.text for chunk in stream)
        assert json.loads(shown) == [1, 1]
    unchecked = StructuredOutput(json_schema=schema, checked=False)
    answer = engine().generate(PROMPT, sampling=SamplingParams(structured=unchecked, max_new_tokens=90))
    assert json.loads(answer.text) == [1, 1] and answer.finish_reason == "eos"
    assert answer.stats.unenforced == ("/: uniqueItems",)


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"properties": {"a": {"type": "strin"}}}, r"Invalid type: strin .*at /properties/a"),
        ({"properties": {"a": 3}}, r"not a schema at /properties/a.*given: 3"),
        ({"properties": {"a": {"$ref": "#/nowhere"}}}, r"'#/nowhere' at /properties/a, which does not exist"),
        ({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "endless answer"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}, "leads back to itself"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "nsatisfiable"),
        ({"properties": {"a": {"enum": ["x", "\udfff"]}}}, r"at /properties/a/enum/1 is not text: character 0"),
        ({"properties": {"a\ud800": {}}}, r"a name in the JSON schema at /properties is not text: character 1"),
        ({"const": float("nan")}, "not JSON at /const"),
    ],
)
def test_what_is_refused(schema, said):
    with pytest.raises(ConfigurationError, match=said):
        grammar_of(StructuredOutput(json_schema=schema))


def test_what_is_no_text_is_harmless_in_a_description():
    schema = {"type": "boolean", "description": "\ud800", "title": "\udfff", "examples": ["\ud800"]}
    assert random_answer(StructuredOutput(json_schema=schema), 0) in ("true", "false")


def test_large_schemas_that_people_have():
    fields = {f"field_{number}": {"type": ["string", "null"], "maxLength": 3} for number in range(500)}
    wide = {"type": "object", "properties": fields}
    assert random_answer(StructuredOutput(json_schema=wide), 1) is not None
    deep: dict[str, Any] = {"type": "boolean"}
    for _ in range(30):
        deep = {"type": "object", "properties": {"inner": deep}, "required": ["inner"], "additionalProperties": False}
    assert random_answer(StructuredOutput(json_schema=deep), 0).count("inner") == 30
    service = {
        "$ref": "#/components/schemas/S0",
        "components": {
            "schemas": {
                f"S{number}": {
                    "type": "object",
                    "properties": {
                        **{f"p{each}": {"type": "string", "format": "date-time"} for each in range(10)},
                        **{
                            f"r{each}": {"$ref": f"#/components/schemas/S{(number * 3 + each) % 700}"}
                            for each in (1, 2)
                        },
                    },
                }
                for number in range(700)
            }
        },
    }
    assert grammar_of(StructuredOutput(json_schema=service)).unenforced == ()


def test_what_is_forbidden_as_draft_4_says_it_cannot_be_written():
    asked = StructuredOutput(json_schema={"type": "object", "properties": {"a": {"not": {}}, "b": {"not": True}}})
    assert grammar_of(asked).unenforced == () and is_written(asked, '{"c": 1}')
    assert not is_written(asked, '{"a": 1}') and not is_written(asked, '{"b": 1}')
