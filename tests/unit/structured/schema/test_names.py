"""What the schema of names says is enforced whole, or checked."""

import pytest

from tests.toys.grammar_walk import left_out


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
