"""Strings: lengths beside patterns, encodings, and the format of regular expressions."""

from rapid_integrations import StructuredOutput
from rapid_integrations.structured.checking import unmet
from tests.toys.grammar_walk import is_written, left_out


def test_a_length_that_multiplies_with_a_pattern_is_checked():
    schema = {"type": "string", "pattern": r"^(?:\S+\s+){0,99}\S+$", "minLength": 1, "maxLength": 5000}
    assert left_out(schema) == ("/: minLength beside its pattern", "/: maxLength beside its pattern")
    assert is_written(StructuredOutput(json_schema=schema), '"' + "several words " * 20 + 'x"')
    assert len(unmet(schema, "x" * 5001)) == 1
    assert left_out({**schema, "maxLength": 40}) == () == left_out({**schema, "pattern": "^[a-z ]+$"})


def test_encoded_json_is_held_to_its_encoding():
    asked = {"type": "string", "contentEncoding": "base64", "contentMediaType": "application/json"}
    assert is_written(StructuredOutput(json_schema=asked), '"e30="')
    assert not is_written(StructuredOutput(json_schema=asked), '"{}"')


def test_the_format_of_regular_expressions_is_checked():
    schema = {"type": "string", "format": "regex"}
    assert left_out(schema) == ("/: format 'regex'",)
    assert unmet(schema, "a+") == [] and len(unmet(schema, "(a")) == 1
