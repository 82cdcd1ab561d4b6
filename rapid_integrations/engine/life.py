"""The state of an engine. It can be used while it is open, in the process that built it.

`ClosableEngine` has what concerns this state of the engine itself: its end, and its `with` blocks.
"""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any, Self

from rapid_integrations.engine.async_stream import in_thread
from rapid_integrations.errors import EngineClosedError, ForkedProcessError, SharedResource

FREED = ("target", "drafter", "draft_lm", "draft_head", "more_drafters", "compressor", "parts")
"""The attributes of an engine that `close` deletes."""


class EngineLife:
    """Knows whether an engine is open, and which process built it."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._closed = False
        self._lock = threading.Lock()

    @property
    def closed(self) -> bool:
        """Whether the engine has been closed."""
        return self._closed

    @property
    def inherited(self) -> bool:
        """Whether this process was forked from the one that built the engine."""
        return self._process != os.getpid()

    def require(self) -> None:
        """Raise an error unless the engine can be used. Does not wait.

        Raises:
            EngineClosedError: the engine has been closed.
            ForkedProcessError: this is a forked child. It inherits memory but no threads, so locks and pools would
                never answer.
        """
        if self.inherited:
            raise ForkedProcessError(
                f"this engine was built in process {self._process}, and process {os.getpid()} was forked from it: "
                "threads do not survive a fork, so a request would wait for ever. Build the engine in each process "
                "after the fork (gunicorn: in the `post_fork` hook, or without `preload_app`; Celery: in "
                "`worker_process_init`), or start processes with multiprocessing's method 'spawn'"
            )
        if self._closed:
            raise EngineClosedError

    def end(self) -> bool:
        """Mark the engine as closed. Return whether it was open; False in a forked child, which cannot close it."""
        if self.inherited:
            return False
        with self._lock:
            ended, self._closed = not self._closed, True
            return ended


class ClosableEngine(SharedResource, ABC):
    """An engine is open until somebody closes it. Leaving its `with` block does."""

    _life: EngineLife

    @property
    def closed(self) -> bool:
        """Whether the engine has been closed."""
        return self._life.closed

    def require_open(self) -> None:
        """Raise an error unless the engine can take a request.

        Raises:
            EngineClosedError: the engine has been closed.
            ForkedProcessError: this process was forked from the one that built the engine.
        """
        self._life.require()

    @abstractmethod
    def close(self) -> None:
        """End all requests and free what the engine holds; safe to call again."""

    async def aclose(self) -> None:
        """Do what `close` does without blocking the event loop."""
        await in_thread(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __getattr__(self, name: str) -> Any:
        if name in FREED and "_life" in vars(self) and self.closed:
            raise EngineClosedError
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
