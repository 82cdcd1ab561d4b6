"""Options of a oneOf that exclude one another need no check; others are checked."""

import pytest

from rapid_integrations.structured.checking import unmet
from tests.toys.grammar_walk import left_out

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
