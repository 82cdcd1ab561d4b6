"""Computations that ask for forward passes instead of making them.

A request's decoding is a generator. It yields what it wants to read (`Wanted`), and is resumed with the logits. Whoever
drives it may thus read the rows of many requests in one pass.
"""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from torch import Tensor

from rapid_integrations.cache import Rows
from rapid_integrations.models.causal_lm import CausalLM

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Wanted:
    """Rows that a computation wants from one pass of a model, for one or several of its readers."""

    model: CausalLM
    rows: tuple[Rows, ...]

    @property
    def count(self) -> int:
        """The number of all readers' rows together."""
        return sum(each.count for each in self.rows)


Wish: TypeAlias = Wanted | Future[Any] | None
"""What a computation waits for: logits, something that happens outside of the worker, or another computation."""

Steps: TypeAlias = Generator[Wish, list[Tensor], T]
"""A computation that yields the rows it wants and is sent their logits, a tensor (keep, V) for each reader.

It yields a future while it waits for another machine, and is resumed with an empty list when the future is done,
whatever became of it. It yields None while it can only go on after another computation has: it is then resumed with an
empty list, too.
"""


def run_alone(steps: Steps[T]) -> T:
    """Run a computation to its end, each pass for it alone, and return its result."""
    try:
        wanted = next(steps)
        while True:
            if isinstance(wanted, Future):
                wait([wanted])
            wanted = steps.send(wanted.model.forward(wanted.rows) if isinstance(wanted, Wanted) else [])
    except StopIteration as end:
        result: T = end.value
        return result
