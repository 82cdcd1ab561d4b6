"""The only part of decoding that reads a clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Recorder:
    """Counts rounds and tokens, and times phases ("compress", "prefill", "propose", "score", "verify", ...).

    Args:
        devices: of the request's models. Their queued work is finished before the clock is read, since what one of them
            has left would count for whatever waits for it next.
    """

    def __init__(self, *devices: torch.device) -> None:
        self._devices = tuple(dict.fromkeys(device for device in devices if device.type == "cuda"))
        self.seconds: dict[str, float] = {}
        self._elsewhere_s = 0.0
        self.rounds = self.drafted = self.accepted = self.tokens = 0
        self._started = self.now()
        self.first_token_s = 0.0
        self._decode_started = self._last_token = self._started

    def now(self) -> float:
        """Return a time in seconds, after the devices have caught up."""
        for device in self._devices:
            torch.cuda.synchronize(device)
        return time.perf_counter()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time spent inside the block to `name`."""
        start, elsewhere = self.now(), self._elsewhere_s
        try:
            yield
        finally:
            spent = self.now() - start - (self._elsewhere_s - elsewhere)
            self.seconds[name] = self.seconds.get(name, 0.0) + spent

    def elsewhere(self, seconds: float) -> None:
        """Exclude time in which other requests were served from the phase that is being timed."""
        self._elsewhere_s += seconds

    def start_decoding(self) -> None:
        """Mark the end of the prefill."""
        self._decode_started = self._last_token = self.now()

    def finish_round(self, drafted: int, accepted: int, tokens: int) -> None:
        """Count a round and its output tokens."""
        self._last_token = self.now()
        if not self.tokens:
            self.first_token_s = self._last_token - self._started
        self.rounds += 1
        self.drafted += drafted
        self.accepted += accepted
        self.tokens += tokens

    def waited(self, seconds: float) -> None:
        """Exclude time that the stream's consumer or an observer took between two rounds."""
        self._decode_started += seconds

    @property
    def decode_started(self) -> float:
        """The time at which the prefill ended, plus the time excluded since."""
        return self._decode_started

    @property
    def decode_s(self) -> float:
        """The seconds from the end of the prefill to the last token, without the consumer's own time."""
        return self._last_token - self._decode_started
