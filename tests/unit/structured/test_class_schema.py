"""The schema of a class: what the class accepts can be written, and what it refuses cannot."""

import dataclasses
import datetime
from decimal import Decimal

import pytest

from rapid_integrations import StructuredOutput
from rapid_integrations.structured.class_schema import class_schema, type_schema
from tests.toys.grammar_walk import is_written, random_answer
from tests.toys.order_class import ORDER, WRONG, Order

ASKED = StructuredOutput(json_schema=class_schema(Order))


def test_what_the_class_accepts_can_be_written():
    Order.model_validate_json(ORDER)
    assert is_written(ASKED, ORDER)


@pytest.mark.parametrize("right", WRONG)
def test_what_the_class_refuses_cannot_be_written(right):
    text = ORDER.replace(right, WRONG[right])
    assert text != ORDER and not is_written(ASKED, text)
    with pytest.raises(ValueError, match="validation error"):
        Order.model_validate_json(text)


def test_random_answers_are_objects_of_the_class():
    found = [text for seed in range(12) if (text := random_answer(ASKED, seed, most=3000)) is not None]
    assert len(found) > 3
    for text in found:
        Order.model_validate_json(text)


@dataclasses.dataclass
class Row:
    price: Decimal
    by_number: dict[int, datetime.date]


def test_other_types_are_narrowed_too():
    asked = StructuredOutput(json_schema=type_schema(list[Row]))
    assert is_written(asked, '[{"price": 1.5, "by_number": {"3": "2024-02-29"}}]')
    for wrong in ('[{"price": "a", "by_number": {}}]', '[{"price": 1, "by_number": {"a": "2024-02-29"}}]'):
        assert not is_written(asked, wrong)
