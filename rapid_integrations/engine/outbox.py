"""What a running request has for its caller: pieces of the answer, progress, and how it ended."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from rapid_integrations.outputs import CompletionChunk

ROOM = 16  # pieces that may wait for the caller; the request pauses beyond


@dataclass(frozen=True)
class Progress:
    """Progress of a stage; see `OnProgress`."""

    stage: str
    done: int
    total: int


@dataclass(frozen=True)
class Ended:
    """The request has ended and holds nothing any more. `error` is what it failed with, None if with nothing."""

    error: BaseException | None


Event: TypeAlias = CompletionChunk | Progress | Ended


class Outbox:
    """A queue between the worker, which never waits here, and one caller, who waits in a thread or in an event loop.

    Args:
        has_room: called when the caller has taken a piece from a full queue.
    """

    def __init__(self, has_room: Callable[[], None]) -> None:
        self._has_room = has_room
        self._events: deque[Event] = deque()
        self._pieces = 0
        self._changed = threading.Condition()
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._ended: Ended | None = None

    @property
    def full(self) -> bool:
        """Whether the request has to pause until the caller has taken a piece."""
        return self._pieces >= ROOM

    @property
    def ended(self) -> bool:
        """Whether the request has ended, whatever of it has been taken."""
        return self._ended is not None

    def put(self, event: Event) -> None:
        """Add an event, and wake whoever waits. After `Ended`, nothing is added."""
        with self._changed:
            if self._ended is not None:
                return
            if isinstance(event, Ended):
                self._ended = event
            self._pieces += isinstance(event, CompletionChunk)
            self._events.append(event)
            self._changed.notify_all()
            waiters, self._waiters = self._waiters, []
        for loop, waiter in waiters:
            try:
                loop.call_soon_threadsafe(_wake, waiter)
            except RuntimeError:  # the loop has been closed, and whoever waited in it is gone
                continue

    def get(self) -> Event:
        """Wait for the next event and take it. `Ended` stays: it is the answer to every later call."""
        with self._changed:
            while (event := self._take()) is None:
                self._changed.wait()
        return self._taken(event)

    async def aget(self) -> Event:
        """Do what `get` does without blocking the event loop."""
        while True:
            with self._changed:
                if (event := self._take()) is not None:
                    break
                waiter = self._waiter()
            await waiter
        return self._taken(event)

    def wait_until_ended(self) -> None:
        """Wait until the request holds nothing any more. What it has for its caller stays."""
        with self._changed:
            while self._ended is None:
                self._changed.wait()

    async def await_ended(self) -> None:
        """Do what `wait_until_ended` does without blocking the event loop."""
        while True:
            with self._changed:
                if self._ended is not None:
                    return
                waiter = self._waiter()
            await waiter

    def _waiter(self) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiters.append((loop, waiter))
        return waiter

    def _take(self) -> Event | None:
        return self._events.popleft() if self._events else self._ended

    def _taken(self, event: Event) -> Event:
        if isinstance(event, CompletionChunk):
            was_full, self._pieces = self.full, self._pieces - 1
            if was_full:
                self._has_room()
        return event


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
