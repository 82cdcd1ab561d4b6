"""Where a reference leads: pointers, ids and anchors, each relative to the URI around it."""

import json

import pytest

from rapid_integrations import StructuredOutput
from rapid_integrations.structured import grammar_of
from rapid_integrations.structured.checking import unmet
from rapid_integrations.structured.references import References
from tests.toys.grammar_walk import random_answer

D7, D2020 = "http://json-schema.org/draft-07/schema#", "https://json-schema.org/draft/2020-12/schema"
YES, NO = {"type": "boolean"}, {"type": "null"}
# Each holds for booleans, and for nothing else.
BOOLEANS = {
    "an id relative to the root's": {"$id": "http://x/a/root.json", "$ref": "b.json", "$defs": {
        "b": {"$id": "b.json", **YES}, "c": {"$id": "http://x/b.json", **NO}}},
    "an id relative to the one around it": {"$id": "http://x/a", "$ref": "http://x/b/d", "$defs": {
        "b": {"$id": "http://x/b/c", "$defs": {"d": {"$id": "d", **YES}}}}},
    "a pointer within an id": {"$ref": "http://x/b#/$defs/c", "$defs": {
        "c": NO, "b": {"$id": "http://x/b", "$defs": {"c": YES}}}},
    "a pointer from within an id": {"$ref": "#/$defs/b", "$defs": {
        "c": NO, "b": {"$id": "http://x/b", "$ref": "#/$defs/c", "$defs": {"c": YES}}}},
    "a pointer from within an id, meant from the root": {"$ref": "#/$defs/b", "$defs": {
        "c": YES, "b": {"$id": "http://x/b", "$ref": "#/$defs/c"}}},
    "an anchor within an id": {"$id": "http://x/a", "$ref": "b#here", "$defs": {
        "a": {"$anchor": "here", **NO}, "b": {"$id": "b", "$defs": {"c": {"$anchor": "here", **YES}}}}},
    "an anchor of draft 7": {"$schema": D7, "$ref": "#here", "definitions": {"a": {"$id": "#here", **YES}}},
    "a URN": {"$id": "urn:example:a", "$ref": "urn:example:a#/$defs/b", "$defs": {"b": YES}},
    "an id within a constant": {"$ref": "http://x/b", "$defs": {
        "a": {"enum": [{"$id": "http://x/b", **NO}]}, "b": {"$id": "http://x/b", **YES}}},
    "a property called const": {"$ref": "http://x/b", "properties": {"const": {"$id": "http://x/b", **YES}},
                                 "type": "boolean"},
    "an id that is none today": {"$schema": D2020, "$ref": "#/$defs/b", "$defs": {
        "b": {"id": "http://x/b", "allOf": [{"$ref": "#/$defs/c"}], "$defs": {"c": NO}}, "c": YES}},
    "an id beside a reference of draft 7": {"$schema": D7, "$id": "http://x/a/", "definitions": {
        "a": {"$id": "http://x/a.json", **NO}, "b": {"$id": "a.json", **YES}},
        "allOf": [{"$id": "http://x/", "$ref": "a.json"}]},
    "empty names": {"$ref": "#/$defs//$defs/", "$defs": {"": {"$defs": {"": YES}}}},
    "beside a reference of draft 7": {"$schema": D7, "$ref": "#/definitions/a", "type": "null",
                                      "definitions": {"a": YES}},
}  # fmt: skip


@pytest.mark.parametrize("name", BOOLEANS)
def test_grammar_and_check_follow_the_same_reference(name):
    asked = StructuredOutput(json_schema=BOOLEANS[name])
    assert grammar_of(asked).unenforced == ()
    assert random_answer(asked, 0) in ("true", "false")
    assert unmet(BOOLEANS[name], True) == [] and unmet(BOOLEANS[name], 3) != []


def test_references_of_several_targets_are_left_to_the_check():
    found = {"$dynamicAnchor": "item", "type": "integer"}
    schema = {
        "$id": "http://x/root",
        "$ref": "list",
        "$defs": {
            "a": found,
            "list": {
                "$id": "list",
                "type": "array",
                "items": {"$dynamicRef": "#item"},
                "$defs": {"b": {"$dynamicAnchor": "item"}},
            },
        },
    }
    (said,) = grammar_of(StructuredOutput(json_schema=schema)).unenforced
    assert said == "/$defs/list/items: $dynamicRef '#item', which has several targets"
    assert unmet(schema, [1]) == [] and len(unmet(schema, ["a"])) == 1
    del schema["$defs"]["list"]["$defs"]  # one target is an ordinary reference
    assert grammar_of(StructuredOutput(json_schema=schema)).unenforced == ()


def test_schemas_are_looked_up_by_what_they_are():
    schema = {"$id": "http://x/a", "items": {"$id": "b", "items": {}}, "enum": [{"$id": "c"}]}
    references = References(json.loads(json.dumps(schema)))
    assert references.base_at("/items/items") == "http://x/b" and references.base_at("/enum/0") == "http://x/a"
    assert references.target("c", "http://x/a") is None and references.target("#", "http://x/b")["$id"] == "b"
