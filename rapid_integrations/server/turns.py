"""Turns: how many requests the engine gets at once, and how many may wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from rapid_integrations.server.failures import RETRY_S, ApiError


class Turns:
    """Gives turns in the order in which they are asked for.

    Args:
        running: number of requests that have a turn at once.
        waiting: number of requests that may wait. More are refused.
        inside: returns how many requests with a turn wait inside the engine, for memory.
    """

    def __init__(self, running: int, waiting: int, inside: Callable[[], int]) -> None:
        self._free = asyncio.Semaphore(running)
        self._most_waiting = waiting
        self._inside = inside
        self._waiting = 0
        self._running = 0

    @property
    def running(self) -> int:
        """The number of requests that have a turn."""
        return self._running

    @property
    def waiting(self) -> int:
        """The number of requests that wait for a turn, or inside the engine for memory."""
        return self._waiting + self._inside()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, and keep it until the block is left.

        Raises:
            ApiError: too many requests wait already (429).
        """
        if self._free.locked() and self.waiting >= self._most_waiting:
            raise ApiError(
                429,
                f"{self.waiting} requests wait already, and the server allows {self._most_waiting}. Ask again later",
                "rate_limit_exceeded",
                retry_s=RETRY_S,
            )
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
            self._free.release()
