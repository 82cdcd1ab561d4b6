"""The state of an engine. It can be used while it is open, in the process that built it."""

from __future__ import annotations

import os
import threading

from rapid_integrations.errors import EngineClosedError, ForkedProcessError


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
