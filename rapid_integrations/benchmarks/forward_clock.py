"""Measure the seconds inside the models' forward passes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from rapid_integrations.cache import Rows
from rapid_integrations.models.causal_lm import CausalLM


class ForwardClock:
    """Sums the time of forward passes that return logits, that is, of decoding and not of prefill.

    Attributes:
        seconds: the sum so far.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def over(self, *models: CausalLM) -> Iterator[None]:
        """Time the models' `forward` inside this block. A model that is given twice is timed once."""
        distinct = {id(model): model for model in models}.values()
        for model in distinct:
            # Set on the instance, so that the model stays the engine's own object (self-speculation compares identity).
            setattr(model, "forward", self._timed(model, model.forward))  # noqa: B010
        try:
            yield
        finally:
            for model in distinct:
                delattr(model, "forward")

    def _timed(self, model: CausalLM, forward: Any) -> Any:
        def timed(rows: Sequence[Rows]) -> list[Tensor]:
            if not any(each.keep for each in rows):
                return forward(rows)  # type: ignore[no-any-return]
            _catch_up(model.device)
            start = time.perf_counter()
            logits: list[Tensor] = forward(rows)
            _catch_up(model.device)
            self.seconds += time.perf_counter() - start
            return logits

        return timed


def _catch_up(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
