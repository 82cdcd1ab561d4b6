"""Schemas that are closed before they are enforced."""

from rapid_integrations.structured.closed import closed


def test_objects_that_say_nothing_are_closed_and_others_left():
    point = {"type": "object", "properties": {"x": {"type": "number"}}}
    given = {
        "type": "object",
        "properties": {"points": {"type": "array", "items": point}, "free": {"type": "object"}},
        "$defs": {"Open": {**point, "additionalProperties": True}},
        "const": point,
    }
    found = closed(given)
    assert found["additionalProperties"] is False
    assert found["properties"]["points"]["items"] == {**point, "additionalProperties": False}
    assert found["properties"]["free"] == {"type": "object"}
    assert found["$defs"]["Open"]["additionalProperties"] is True and found["const"] == point
    assert "additionalProperties" not in given
