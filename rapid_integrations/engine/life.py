"""Whether an engine may be used: it is open, and this is the process that built it."""

from __future__ import annotations

import os
import threading

from rapid_integrations.errors import EngineClosedError, ForkedProcessError


class EngineLife:
    """From building an engine to closing it, in one process."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._closed = False
        self._lock = threading.Lock()

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        return self._closed

    @property
    def inherited(self) -> bool:
        """Whether this process was forked from the one that built the engine."""
        return self._process != os.getpid()

    def require(self) -> None:
        """Raise unless the engine may be used; waits for nothing.

        Raises:
            EngineClosedError: it has been closed.
            ForkedProcessError: a forked child inherits memory but no threads, so locks and pools would never answer.
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
        """Let it end, and return whether it had not; what a forked child inherited is not its own to end."""
        if self.inherited:
            return False
        with self._lock:
            ended, self._closed = not self._closed, True
            return ended
