"""The one place where decoding reads a clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Recorder:
    """Counts rounds and tokens, and times phases ("compress", "prefill", "propose", "score", "verify", ...).

    Args:
        device: its queued work is finished before a clock is read.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds: dict[str, float] = {}
        self.rounds = self.drafted = self.accepted = self.tokens = 0
        self._started = self.now()
        self.first_token_s = 0.0
        self._decode_started = self._last_token = self._started

    def now(self) -> float:
        """Return a time in seconds, after the device has caught up."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time spent inside to `name`."""
        start = self.now()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + self.now() - start

    def start_decoding(self) -> None:
        """Mark the end of the prefill."""
        self._decode_started = self._last_token = self.now()

    def finish_round(self, drafted: int, accepted: int, tokens: int) -> None:
        """Count a round and the tokens that it gave."""
        self._last_token = self.now()
        if not self.tokens:
            self.first_token_s = self._last_token - self._started
        self.rounds += 1
        self.drafted += drafted
        self.accepted += accepted
        self.tokens += tokens

    def waited(self, seconds: float) -> None:
        """Leave out time in which the stream's consumer held it open between two rounds, or an observer looked on."""
        self._decode_started += seconds

    @property
    def decode_started(self) -> float:
        """When the prefill ended, moved on by what was left out since."""
        return self._decode_started

    @property
    def decode_s(self) -> float:
        """Seconds from the end of the prefill to the last token, without the consumer's own time."""
        return self._last_token - self._decode_started
