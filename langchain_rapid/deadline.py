"""The time limit of a request (the constructor's `timeout`)."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator

from langchain_rapid.errors import RequestTimeoutError
from rapid_integrations import CompletionChunk
from rapid_integrations.progress import OnProgress


class Deadline:
    """The moment after which a request fails with `TimeoutError`. It is checked between prefill chunks and pieces.

    Args:
        seconds: time from now; None sets no limit.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._end = None if seconds is None else time.monotonic() + seconds

    def check(self) -> None:
        """Raise RequestTimeoutError (a TimeoutError) if the moment has passed."""
        if self._end is not None and time.monotonic() > self._end:
            raise RequestTimeoutError(
                f"the request took longer than timeout={self._seconds:g} seconds: raise it, ask for fewer tokens "
                "(max_tokens), or give a shorter context"
            )

    def reporting(self, on_progress: OnProgress | None) -> OnProgress:
        """Return a progress callback for the engine that checks the deadline first."""

        def report(stage: str, done: int, total: int) -> None:
            self.check()
            if on_progress is not None:
                on_progress(stage, done, total)

        return report

    def watch(self, chunks: Iterator[CompletionChunk]) -> Iterator[CompletionChunk]:
        """Yield `chunks` until the deadline."""
        for chunk in chunks:
            yield chunk
            if chunk.finish_reason is None:
                self.check()

    async def awatch(self, chunks: AsyncIterator[CompletionChunk]) -> AsyncIterator[CompletionChunk]:
        """Yield `chunks` until the deadline."""
        async for chunk in chunks:
            yield chunk
            if chunk.finish_reason is None:
                self.check()
