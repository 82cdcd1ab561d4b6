"""A class that a small model can fill."""

from typing import Literal

from pydantic import BaseModel


class Verdict(BaseModel):
    """What was decided."""

    kind: Literal["yes", "no", "unclear"]
    certain: bool
