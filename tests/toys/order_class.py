"""A class with every kind of field that people write, and what a model would answer."""

import enum
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, NaiveDatetime


class Priority(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Status(enum.Enum):
    OPEN = "open"
    CLOSED = "closed"


class Card(BaseModel):
    kind: Literal["card"]
    digits: Annotated[str, Field(pattern=r"^\d{4}$")]


class Transfer(BaseModel):
    kind: Literal["transfer"]
    bank: Annotated[str, Field(min_length=2, max_length=8)]


class Part(BaseModel):
    """Parts hold parts."""

    name: str
    parts: list["Part"] = []


class Order(BaseModel):
    """Strict: pydantic takes dates, enumerations and decimals as text from JSON, but not from Python's dictionaries."""

    model_config = ConfigDict(strict=True)
    number: Annotated[int, Field(ge=1, lt=10**6)]
    status: Status
    priority: Priority = Priority.LOW
    paid: Annotated[Card | Transfer, Field(discriminator="kind")]
    note: str | None = None
    day: date
    at: datetime
    local: NaiveDatetime
    price: Annotated[Decimal, Field(max_digits=8, decimal_places=2)]
    rows: dict[int, Annotated[str, Field(max_length=10)]]
    tags: set[Literal["new", "big"]]
    pair: tuple[int, str]
    part: Part
    key: UUID


ORDER = """{"number": 7, "status": "open", "priority": 2, "paid": {"kind": "card", "digits": "0123"}, "note": null,
 "day": "2024-02-29", "at": "2024-02-29T10:00:00Z", "local": "2024-02-29T10:00:00", "price": 12.5,
 "rows": {"1": "a", "-20": "b"}, "tags": ["new", "big"], "pair": [1, "x"],
 "part": {"name": "a", "parts": [{"name": "b", "parts": []}]}, "key": "2eb8aa08-aa98-11ea-b4aa-73b441d16380"}"""

WRONG = {
    '"number": 7': '"number": 0',
    '"status": "open"': '"status": "OPEN"',
    '"priority": 2': '"priority": 3',
    '"digits": "0123"': '"digits": "01x3"',
    '"kind": "card"': '"kind": "cash"',
    '"day": "2024-02-29"': '"day": "2023-02-29"',
    '"at": "2024-02-29T10:00:00Z"': '"at": "2024-02-29T25:00:00Z"',
    '"local": "2024-02-29T10:00:00"': '"local": "2024-02-29T10:00:00Z"',
    '"price": 12.5': '"price": "a"',
    '"rows": {"1"': '"rows": {"one"',
    '"pair": [1, "x"]': '"pair": [1, "x", 2]',
    '"key": "2eb8': '"key": "zeb8',
}
"""What a model might write in its place, which the class refuses."""
