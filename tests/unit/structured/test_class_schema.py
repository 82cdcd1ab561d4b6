"""The schema of a class: what the class accepts can be written, and what it refuses cannot."""

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

from rapid_integrations import StructuredOutput
from rapid_integrations.structured.class_schema import class_schema, type_schema
from tests.toys.budget import examples
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
    price: decimal.Decimal
    by_number: dict[int, datetime.date]


def test_other_types_are_narrowed_too():
    asked = StructuredOutput(json_schema=type_schema(list[Row]))
    assert is_written(asked, '[{"price": 1.5, "by_number": {"3": "2024-02-29"}}]')
    for wrong in ('[{"price": "a", "by_number": {}}]', '[{"price": 1, "by_number": {"a": "2024-02-29"}}]'):
        assert not is_written(asked, wrong)


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
