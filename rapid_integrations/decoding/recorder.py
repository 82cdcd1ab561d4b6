"""The only part of decoding that reads a clock."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class _Mark:
    """A point in time: on the host's clock, and in the queue of each device."""

    at: float
    events: Sequence[Any]

    def seconds_until(self, end: _Mark) -> float:
        """Return the seconds to a later mark, as the slowest device counts them; waits until they have reached it."""
        if not self.events:
            return end.at - self.at
        for event in end.events:
            if not event.query():
                event.synchronize()
        both = zip(self.events, end.events, strict=True)
        return max(1e-3 * float(begin.elapsed_time(event)) for begin, event in both)


class Recorder:
    """Counts rounds and tokens, and times phases ("compress", "prefill", "propose", "score", "verify", ...).

    Work for a GPU is queued, and goes on when the host has left the phase that asked for it. So phases are timed by
    events in these queues, for which nobody waits until the seconds are asked for.

    Args:
        devices: of the request's models.
    """

    def __init__(self, *devices: torch.device) -> None:
        self._devices = tuple(dict.fromkeys(device for device in devices if device.type == "cuda"))
        self._seconds: dict[str, float] = {}
        self._unsettled: list[tuple[str, _Mark, _Mark, float]] = []
        self._elsewhere_s = 0.0
        self.rounds = self.drafted = self.accepted = self.tokens = 0
        self._started = time.perf_counter()
        self.first_token_s = 0.0
        self._decode_started = self._last_token = self._started

    @property
    def seconds(self) -> dict[str, float]:
        """The seconds of each phase. Waits for devices only if they have not finished a phase."""
        for name, begin, end, elsewhere in self._unsettled:
            spent = max(0.0, begin.seconds_until(end) - elsewhere)
            self._seconds[name] = self._seconds.get(name, 0.0) + spent
        self._unsettled.clear()
        return self._seconds

    def now(self) -> float:
        """Return a time in seconds, after the devices have caught up."""
        for device in self._devices:
            torch.cuda.synchronize(device)
        return time.perf_counter()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time spent inside the block to `name`."""
        begin, elsewhere = self._mark(), self._elsewhere_s
        try:
            yield
        finally:
            self._unsettled.append((name, begin, self._mark(), self._elsewhere_s - elsewhere))

    def _mark(self) -> _Mark:
        events = []
        for device in self._devices:
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(device))
            events.append(event)
        return _Mark(time.perf_counter(), events)

    def elsewhere(self, seconds: float) -> None:
        """Exclude time in which other requests were served from the phase that is being timed."""
        self._elsewhere_s += seconds

    def idle(self, seconds: float) -> None:
        """Exclude time in which nobody had asked for the first piece yet."""
        self._started += seconds

    def answered_at_once(self) -> None:
        """Mark an answer that no model wrote: its text is there now."""
        self.start_decoding()
        self.first_token_s = self._last_token - self._started

    def start_decoding(self) -> None:
        """Mark the end of the prefill."""
        self._decode_started = self._last_token = self.now()

    def finish_round(self, drafted: int, accepted: int, tokens: int) -> None:
        """Count a round and its output tokens, which the host knows: the devices have computed them."""
        self._last_token = time.perf_counter()
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
