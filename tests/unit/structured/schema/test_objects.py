"""Properties by pattern, and how many there are."""

import json

from rapid_integrations import StructuredOutput
from rapid_integrations.structured.checking import unmet
from tests.toys.grammar_walk import is_written, left_out, random_answer


def test_names_that_no_grammar_tells_apart_may_have_the_values_of_all():
    """`^(?!a)` and `(b)\\1` are given up: what only they allow can be written nevertheless."""
    odd = {"^(?!a)b": {"type": "boolean"}, r"(c)\1": {"type": "null"}}
    for others, more in ((False, None), ({"type": "integer"}, 7)):
        schema = {"type": "object", "patternProperties": odd, "additionalProperties": others}
        assert len(left_out(schema)) == 2
        values = {value for seed in range(60) if (text := random_answer(StructuredOutput(json_schema=schema), seed))
                  for value in map(type, json.loads(text).values())}  # fmt: skip
        assert values == {bool, type(None), *([type(more)] if more else [])}


def test_a_name_that_is_repeated_counts_once():
    schema = {"type": "object", "additionalProperties": {"type": "null"}, "minProperties": 3}
    assert left_out(schema) == ("/: minProperties, of which a name that is repeated counts once",)
    assert len(unmet(schema, json.loads('{"a": null, "a": null, "a": null}'))) == 1
    assert left_out({**schema, "required": ["a", "b"]}) == ()


def test_patterns_of_names_that_cost_too_much_are_checked():
    costly = {"type": "object", "patternProperties": {"([A-Za-z0-9-_.:]{1,255})": {"type": "integer"}}}
    (said,) = left_out(costly)
    assert said.startswith("/: patternProperties") and len(unmet(costly, {"a-b": "x"})) == 1
    assert is_written(StructuredOutput(json_schema=costly), '{"a-b": 1, "c": 2}')
    cheap = {"type": "object", "patternProperties": {"[A-Za-z0-9-_.:]{1,255}": {"type": "integer"}}}
    assert left_out(cheap) == () and is_written(StructuredOutput(json_schema=cheap), '{"a-b": 1}')
