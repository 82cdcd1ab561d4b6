"""Watch the forward passes of an engine: how many rows share one, and how much memory the KV caches take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

from torch import Tensor

from rapid_integrations.cache import Rows
from rapid_integrations.engine.engine import RapidEngine

_Forward: TypeAlias = Callable[[Sequence[Rows]], list[Tensor]]


class PassWatch:
    """Counts the passes that return logits, that is, those of decoding and not of prefill.

    Args:
        engine: its models are watched.
        kv: also look at the bytes of its KV caches after each pass. This takes time, so leave it out where time counts.

    Attributes:
        passes: number of passes.
        rows: number of rows in them.
        kv_bytes: most bytes of KV caches after a pass, see `RapidEngine.kv_bytes`; 0 if nobody looked.
    """

    def __init__(self, engine: RapidEngine, *, kv: bool = False) -> None:
        self._engine, self._kv = engine, kv
        self.passes = self.rows = self.kv_bytes = 0

    @property
    def rows_per_pass(self) -> float | None:
        """Mean number of rows in a pass; None if there was no pass."""
        return self.rows / self.passes if self.passes else None

    @contextmanager
    def watching(self) -> Iterator[PassWatch]:
        """Watch inside this block."""
        models = [self._engine.target, self._engine.drafter, self._engine.draft_lm]
        distinct = {id(model): model for model in models if model is not None}.values()
        for model in distinct:
            # Set on the instance, so that the model stays the engine's own object (self-speculation compares identity).
            setattr(model, "forward", self._watched(model.forward))  # noqa: B010
        try:
            yield self
        finally:
            for model in distinct:
                delattr(model, "forward")

    def _watched(self, forward: _Forward) -> _Forward:
        def watched(rows: Sequence[Rows]) -> list[Tensor]:
            logits = forward(rows)
            if any(each.keep for each in rows):
                self.passes += 1
                self.rows += sum(each.count for each in rows)
            if self._kv:
                self.kv_bytes = max(self.kv_bytes, self._engine.kv_bytes)
            return logits

        return watched
