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


RIDERS = 64
"""Rows that may ride along in a pass over a piece of a prompt. Alone, so few take nearly as long as four times as many.
"""


def side_by_side(first: Steps[None], second: Steps[None], most: int) -> Steps[None]:
    """Run one computation after the other, but with pieces of both in one pass if these have at most `most` rows.

    So a pass over few rows of a prompt does not read all weights for them alone.
    """
    later = _Begun(second)
    now = _Begun(first)
    now.go_on(None)
    while not now.ended:
        wish = now.wish
        if isinstance(wish, Wanted) and wish.model.prompts_together and wish.count < most:
            if not later.begun:
                later.go_on(None)
            other = later.wish
            fits = isinstance(other, Wanted) and other.model is wish.model and wish.count + other.count <= most
            if isinstance(other, Wanted) and fits and _of_prompts(wish) and _of_prompts(other):
                logits = yield Wanted(wish.model, (*wish.rows, *other.rows))
                now.go_on(logits[: len(wish.rows)])
                later.go_on(logits[len(wish.rows) :])
                continue
        now.go_on((yield wish))
    if not later.begun:
        later.go_on(None)
    while not later.ended:
        later.go_on((yield later.wish))


def _of_prompts(wanted: Wanted) -> bool:
    return all(each.of_prompt and not each.keep for each in wanted.rows)


class _Begun:
    """A computation that has been begun, with its present wish."""

    def __init__(self, steps: Steps[None]) -> None:
        self._steps = steps
        self.wish: Wish = None
        self.begun = self.ended = False

    def go_on(self, logits: list[Tensor] | None) -> None:
        try:
            self.wish = self._steps.send(logits) if self.begun and logits is not None else next(self._steps)
        except StopIteration:
            self.ended, self.wish = True, None
        self.begun = True


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
