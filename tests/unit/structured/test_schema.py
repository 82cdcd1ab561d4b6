"""JSON schemas as pydantic, OpenAPI and MCP tools write them: nothing that people write is refused."""

import collections
import dataclasses
import datetime
import decimal
import enum
import ipaddress
import json
import pathlib
import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Generic, Literal, Optional, TypeVar, Union

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import (
    UUID1,
    UUID4,
    UUID7,
    AnyUrl,
    AwareDatetime,
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    HttpUrl,
    IPvAnyAddress,
    Json,
    NaiveDatetime,
    PositiveInt,
    PostgresDsn,
    SecretBytes,
    SecretStr,
    StringConstraints,
    computed_field,
    condecimal,
    create_model,
)
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import TypedDict

from rapid_integrations import ConfigurationError, IncompleteOutputError, SamplingParams, StructuredOutput
from rapid_integrations.structured import grammar_of
from rapid_integrations.structured.checking import unmet
from rapid_integrations.structured.class_schema import class_schema
from rapid_integrations.structured.grammar import require_enforceable
from tests.toys.budget import examples
from tests.toys.grammar_walk import is_written, random_answer
from tests.toys.structured_requests import PROMPT, engine


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"
    THREE = 3


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    good: bool


class Node(BaseModel):
    value: int
    children: list["Node"] = []


class Pair(TypedDict):
    a: int
    b: Annotated[str, Field(max_length=3)]


@pydantic_dataclass
class Point:
    x: int
    label: str | None = None


@dataclasses.dataclass
class Plain:
    x: float


Item = TypeVar("Item")


class Box(BaseModel, Generic[Item]):
    item: Item
    others: list[Item] = Field(max_length=2)


class Named(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    some: int = Field(alias="someThing")

    @computed_field
    @property
    def double(self) -> int:
        return 2 * self.some


TYPES = {
    "path": pathlib.Path, "bytes": bytes, "secret": SecretStr, "secret bytes": SecretBytes, "uuid": uuid.UUID,
    "uuid1": UUID1, "uuid4": UUID4, "uuid7": UUID7, "datetime": datetime.datetime, "aware": AwareDatetime,
    "naive": NaiveDatetime,
    "date": datetime.date, "time": datetime.time, "timedelta": datetime.timedelta, "decimal": decimal.Decimal,
    "decimal, places": condecimal(max_digits=5, decimal_places=2), "decimal, bounds": condecimal(gt=0, le=10),
    "decimal, step": condecimal(multiple_of=decimal.Decimal("0.25")), "any ip": IPvAnyAddress,
    "ipv4": ipaddress.IPv4Address, "ipv6": ipaddress.IPv6Address, "ipv4 network": ipaddress.IPv4Network,
    "ipv6 network": ipaddress.IPv6Network, "ipv4 interface": ipaddress.IPv4Interface, "url": AnyUrl, "http": HttpUrl,
    "set": set[int], "frozenset": frozenset[Literal["a", "b"]], "tuple": tuple[int, str], "tuple...": tuple[int, ...],
    "literal": Literal["a", 1, None, True], "literal float": Literal["a", 3], "enum": Colour, "optional": int | None,
    "union": int | str | list[int], "recursive": Node, "bounds": Annotated[int, Field(gt=3, le=9)],
    "discriminated": Annotated[Cat | Dog, Field(discriminator="kind")], "generic": Box[int], "generics": Box[Node],
    "multiple": Annotated[int, Field(multiple_of=7, ge=0, le=1000)], "alias": Named, "typed dict": Pair,
    "multiple of a fraction": Annotated[float, Field(multiple_of=0.1, ge=0, le=2)], "dataclass": Point, "plain": Plain,
    "pattern": Annotated[str, Field(pattern=r"^[a-z]{2}\d+$")], "any": Any, "object": object, "none": None,
    "lengths": Annotated[str, Field(min_length=2, max_length=4)], "dict": dict[str, int], "int keys": dict[int, str],
    "literal keys": dict[Literal["a", "b"], int], "enum keys": dict[Colour, int], "date keys": dict[datetime.date, int],
    "pattern keys": dict[Annotated[str, StringConstraints(pattern="^k[0-9]$")], bool], "id keys": dict[uuid.UUID, int],
    "sizes": Annotated[dict[str, int], Field(min_length=1, max_length=2)], "json": Json, "json int": Json[int],
    "json list": Json[list[int]], "positive": PositiveInt, "float": float, "complex": complex, "list": Sequence[int],
    "deque": collections.deque[int], "counter": collections.Counter[str], "deep": list[dict[str, list[int | None]]],
}  # fmt: skip


@pytest.mark.in_a_hurry(20)
@pytest.mark.parametrize("name", TYPES)
def test_what_is_enforced_can_be_read_by_the_class(name):
    model = create_model("Model", value=(TYPES[name], ...))
    asked = StructuredOutput(json_schema=class_schema(model))
    ended = 0
    for seed in range(3):
        text = random_answer(asked, seed)
        if text is not None:
            model.model_validate_json(text)
            ended += 1
    assert ended


# The schema allows more than the class: no grammar knows files, the day, or who takes part.
@pytest.mark.parametrize("kind", [ByteSize, PostgresDsn, pathlib.Path])
def test_types_that_read_less_than_their_schema_says_still_compile(kind):
    asked = StructuredOutput(json_schema=class_schema(create_model("Model", value=(kind, ...))))
    assert json.loads(random_answer(asked, 0))["value"] is not None


LEAVES = st.sampled_from(sorted(set(TYPES) - {"recursive", "generics", "any", "object", "json"}))


@st.composite
def models(draw):
    fields = {}
    for number in range(draw(st.integers(1, 4))):
        kind = TYPES[draw(LEAVES)]
        wrap = draw(st.sampled_from(["", "list", "optional", "dict", "union"]))
        if wrap == "list":
            kind = Annotated[list[kind], Field(max_length=2)]
        elif wrap == "optional":
            kind = Optional[kind]  # noqa: UP045
        elif wrap == "dict":
            kind = dict[Literal["a", "b"], kind]
        elif wrap == "union":
            kind = Union[TYPES[draw(LEAVES)], kind]  # noqa: UP007
        default = draw(st.sampled_from([..., None]))
        fields[f"field_{number}"] = (kind, ...) if default is ... else (Optional[kind], None)  # noqa: UP045
    return create_model("Model", **fields)


@settings(max_examples=examples(40), derandomize=True)
@given(model=models(), seed=st.integers(0, 100))
def test_random_classes(model, seed):
    text = random_answer(StructuredOutput(json_schema=class_schema(model)), seed)
    if text is not None:
        model.model_validate_json(text)


# --- OpenAPI, MCP, other drafts ------------------------------------------------------------

DATE_TEXT = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
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


def test_formats_of_integers_are_ranges():
    asked = StructuredOutput(json_schema={"type": "integer", "format": "int32"})
    assert all(-(2**31) <= int(random_answer(asked, seed)) < 2**31 for seed in range(10))


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


def test_nothing_is_fetched_and_no_pattern_takes_for_ever():
    schema = {"not": {"$ref": "http://127.0.0.1:1/x"}, "type": "string"}
    assert unmet(schema, "a") == []
    found = require_enforceable({"type": "object", "properties": {"a": {"$ref": "https://example.com/x.json"}}})
    assert found.unenforced == ("/properties/a: $ref 'https://example.com/x.json', which leads nowhere in the schema",)
    assert unmet({"type": "string", "not": {"pattern": "^(a+)+$"}}, "a" * 50 + "b") == []


def left_out(schema):
    return grammar_of(StructuredOutput(json_schema=schema)).unenforced


TAGGED = [{"properties": {"k": {"const": name}}, "required": ["k"]} for name in "ab"]
TEXT, COUNT = {"type": "string", "nullable": True}, {"type": "integer", "nullable": True}


@pytest.mark.parametrize(
    "schema",
    [
        {"oneOf": [{"type": "string"}]},
        {"oneOf": [{"const": 1}, {"enum": [2, "1", None]}]},
        {"oneOf": [{"type": ["string", "null"]}, {"type": "integer"}]},
        {"type": "object", "oneOf": TAGGED},
        {"oneOf": [{"type": "object", **each} for each in TAGGED]},
    ],
)
def test_options_that_exclude_one_another_need_no_check(schema):
    assert left_out(schema) == ()


@pytest.mark.parametrize(
    ("schema", "both"),
    [
        ({"oneOf": [TEXT, COUNT]}, None),
        ({"oneOf": TAGGED}, 5),
        ({"oneOf": [{"const": 1}, {"const": 1.0}]}, 1),
        ({"oneOf": [{"type": "integer"}, {"type": ["number", "null"]}]}, 1),
    ],
)
def test_options_that_a_value_may_satisfy_together_are_checked(schema, both):
    assert left_out(schema) == ("/: oneOf (anyOf is enforced)",) and len(unmet(schema, both)) == 1


def test_names_that_no_grammar_tells_apart_may_have_the_values_of_all():
    """`^(?!a)` and `(b)\\1` are given up: what only they allow can be written nevertheless."""
    odd = {"^(?!a)b": {"type": "boolean"}, r"(c)\1": {"type": "null"}}
    for others, more in ((False, None), ({"type": "integer"}, 7)):
        schema = {"type": "object", "patternProperties": odd, "additionalProperties": others}
        assert len(left_out(schema)) == 2
        values = {value for seed in range(60) if (text := random_answer(StructuredOutput(json_schema=schema), seed))
                  for value in map(type, json.loads(text).values())}  # fmt: skip
        assert values == {bool, type(None), *([type(more)] if more else [])}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"pattern": "^a", "type": "string", "description": "x"}, ()),
        ({"format": "DATE"}, ()),
        ({"enum": ["ab", "b"], "pattern": "^a"}, ("/: propertyNames",)),
        ({"pattern": "^a", "maxLength": 2}, ("/: propertyNames",)),
        ({"type": "integer"}, ("/: propertyNames",)),
    ],
)
def test_names_are_enforced_whole_or_checked(names, said):
    assert left_out({"type": "object", "propertyNames": names}) == said


def test_a_name_that_is_repeated_counts_once():
    schema = {"type": "object", "additionalProperties": {"type": "null"}, "minProperties": 3}
    assert left_out(schema) == ("/: minProperties, of which a name that is repeated counts once",)
    assert len(unmet(schema, json.loads('{"a": null, "a": null, "a": null}'))) == 1
    assert left_out({**schema, "required": ["a", "b"]}) == ()


@pytest.mark.parametrize(
    ("bounds", "right", "wrong"),
    [
        ({"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}, 5, 2**63),
        ({"type": "integer", "maximum": 2**64 - 1}, 10**19, 2**64),
        ({"type": "number", "maximum": 2**63 - 1}, 5, 10**19),
        ({"minimum": -(2**64) + 1}, -(2**64) + 1, -(2**64)),
        ({"type": "integer", "minimum": -(10**18) + 1}, 0, -(10**18)),
        ({"type": "integer", "exclusiveMaximum": 10**16 - 1}, 5, 10**16 - 1),
    ],
)
def test_bounds_that_the_library_reads_as_others_are_checked(bounds, right, wrong):
    assert left_out(bounds) and unmet(bounds, right) == [] and len(unmet(bounds, wrong)) == 1
    assert is_written(StructuredOutput(json_schema=bounds), str(right))


@pytest.mark.parametrize(("form", "edges"), [("int64", (-(2**62), 2**63 - 1)), ("uint64", (0, 2**63 - 1))])
def test_formats_of_long_integers(form, edges):
    asked = StructuredOutput(json_schema={"type": "object", "properties": {"a": {"type": "integer", "format": form}}})
    assert grammar_of(asked).unenforced == ()
    for edge, beyond in zip(edges, (edges[0] - 1, 10**20), strict=True):
        assert is_written(asked, f'{{"a": {edge}}}') and not is_written(asked, f'{{"a": {beyond}}}')


def test_a_name_has_one_spelling():
    """Spelled with escapes, a declared name would be taken for another one, which may hold anything."""
    open_object = {"type": "object", "properties": {"a": {"type": "integer"}}}
    named = {"type": "object", "patternProperties": {"^x": {"type": "integer"}}}
    assert is_written(StructuredOutput(json_schema=open_object), '{"a": 1, "b\\n": "x"}')
    for schema, text in ((open_object, '{"\\u0061": "x"}'), (named, '{"\\u0078": "x"}')):
        for options in ({}, {"x-guidance": {"whitespace_flexible": False}}):
            assert not is_written(StructuredOutput(json_schema={**schema, **options}), text)
    nested = "start: %json " + json.dumps(open_object)
    assert not is_written(StructuredOutput(grammar=nested), '{"\\u0061": "x"}')
    control = {**open_object, "properties": {"a": {"type": "integer"}, "c": {"const": "\x01"}}}
    assert left_out(control) == ("/: names that are spelled with escapes",)
    assert is_written(StructuredOutput(json_schema=control), '{"a": 1, "c": "\\u0001"}')
    assert len(unmet(control, json.loads('{"\\u0061": "x"}'))) == 1


def test_a_length_that_multiplies_with_a_pattern_is_checked():
    schema = {"type": "string", "pattern": r"^(?:\S+\s+){0,99}\S+$", "minLength": 1, "maxLength": 5000}
    assert left_out(schema) == ("/: minLength beside its pattern", "/: maxLength beside its pattern")
    assert is_written(StructuredOutput(json_schema=schema), '"' + "several words " * 20 + 'x"')
    assert len(unmet(schema, "x" * 5001)) == 1
    assert left_out({**schema, "maxLength": 40}) == () == left_out({**schema, "pattern": "^[a-z ]+$"})


def test_patterns_of_names_that_cost_too_much_are_checked():
    costly = {"type": "object", "patternProperties": {"([A-Za-z0-9-_.:]{1,255})": {"type": "integer"}}}
    (said,) = left_out(costly)
    assert said.startswith("/: patternProperties") and len(unmet(costly, {"a-b": "x"})) == 1
    assert is_written(StructuredOutput(json_schema=costly), '{"a-b": 1, "c": 2}')
    cheap = {"type": "object", "patternProperties": {"[A-Za-z0-9-_.:]{1,255}": {"type": "integer"}}}
    assert left_out(cheap) == () and is_written(StructuredOutput(json_schema=cheap), '{"a-b": 1}')


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


def test_what_is_forbidden_as_draft_4_says_it_cannot_be_written():
    asked = StructuredOutput(json_schema={"type": "object", "properties": {"a": {"not": {}}, "b": {"not": True}}})
    assert grammar_of(asked).unenforced == () and is_written(asked, '{"c": 1}')
    assert not is_written(asked, '{"a": 1}') and not is_written(asked, '{"b": 1}')


def test_encoded_json_is_held_to_its_encoding():
    asked = {"type": "string", "contentEncoding": "base64", "contentMediaType": "application/json"}
    assert is_written(StructuredOutput(json_schema=asked), '"e30="')
    assert not is_written(StructuredOutput(json_schema=asked), '"{}"')


def test_the_format_of_regular_expressions_is_checked():
    schema = {"type": "string", "format": "regex"}
    assert left_out(schema) == ("/: format 'regex'",)
    assert unmet(schema, "a+") == [] and len(unmet(schema, "(a")) == 1
