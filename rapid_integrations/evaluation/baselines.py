"""transformers' own `generate`, timed so that prefill and decoding are told apart."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class TimedTokens:
    """Output tokens, and the seconds from the first of them to the last."""

    token_ids: tuple[int, ...]
    decode_s: float

    @property
    def decode_tps(self) -> float:
        """Tokens per second after the first."""
        return (len(self.token_ids) - 1) / self.decode_s if self.decode_s else 0.0


class _Clock:
    """A transformers streamer that notes when each token came."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._prompt_seen = False
        self.times: list[float] = []

    def put(self, value: Tensor) -> None:
        if not self._prompt_seen:  # transformers passes the prompt first
            self._prompt_seen = True
            return
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self.times.append(time.perf_counter())

    def end(self) -> None:
        """Nothing to flush."""


def transformers_generate(model: Any, prompt_ids: Sequence[int], new_tokens: int, eos: Sequence[int]) -> TimedTokens:
    """Decode greedily with `model.generate`, as it comes: its default cache and attention.

    Args:
        model: a transformers causal LM with its own attention setting.
        prompt_ids: the prompt.
        new_tokens: output at most.
        eos: ids that end the answer.
    """
    ids = torch.tensor([list(prompt_ids)], device=model.device)
    clock = _Clock(model.device)
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=new_tokens,
        do_sample=False,
        eos_token_id=list(eos) or None,
        pad_token_id=next(iter(eos), 0),
        streamer=clock,
    )
    tokens = output[0, len(prompt_ids) :].tolist()
    return TimedTokens(tuple(tokens), clock.times[-1] - clock.times[0] if len(clock.times) > 1 else 0.0)
