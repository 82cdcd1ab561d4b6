"""The time limit of an answer, which a stopping server brings forward."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rapid_integrations.server.failures import RETRY_S, ApiError


class Deadlines:
    """Time limits of all running answers.

    Args:
        seconds: time within which an answer has to be complete.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._open: dict[asyncio.Timeout, ApiError] = {}
        self.stopping = False

    @property
    def running(self) -> int:
        """The number of answers that are being made."""
        return len(self._open)

    @asynccontextmanager
    async def limit(self) -> AsyncIterator[None]:
        """Cancel the block at its time limit.

        Raises:
            ApiError: the time is over (504), or the server stops (503).
        """
        if self.stopping:
            raise _stopping()
        reason = ApiError(
            504,
            f"the answer took longer than the server allows ({self._seconds:g} s). Ask for fewer tokens, or have "
            "request_timeout_s raised",
            "request_timeout",
        )
        timeout = asyncio.timeout(self._seconds)
        self._open[timeout] = reason
        try:
            async with timeout:
                yield
        except TimeoutError:
            if not timeout.expired():
                raise
            raise self._open[timeout] from None
        finally:
            del self._open[timeout]

    def stop(self) -> None:
        """Take no new answers."""
        self.stopping = True

    def cut(self) -> None:
        """End all running answers now; each says that the server stops."""
        now = asyncio.get_running_loop().time()
        for timeout in tuple(self._open):
            self._open[timeout] = _stopping()
            if not timeout.expired():
                timeout.reschedule(now)


def _stopping() -> ApiError:
    return ApiError(503, "the server is stopping. Ask again when it has started anew", "stopping", retry_s=RETRY_S)
