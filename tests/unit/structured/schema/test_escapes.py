"""An answer spells each name in one way."""

import json

from rapid_integrations import StructuredOutput
from rapid_integrations.structured.checking import unmet
from tests.toys.grammar_walk import is_written, left_out


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
