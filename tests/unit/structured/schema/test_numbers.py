"""Bounds of numbers that the library reads as others, and formats of integers."""

import pytest

from rapid_integrations import StructuredOutput
from rapid_integrations.structured import grammar_of
from rapid_integrations.structured.checking import unmet
from tests.toys.grammar_walk import is_written, left_out, random_answer


def test_formats_of_integers_are_ranges():
    asked = StructuredOutput(json_schema={"type": "integer", "format": "int32"})
    assert all(-(2**31) <= int(random_answer(asked, seed)) < 2**31 for seed in range(10))


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
