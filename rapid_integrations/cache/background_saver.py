"""A thread that writes cache files while answers are decoded."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue

Job = Callable[[Callable[[], bool]], None]  # it gets a function that says whether to go on

WAITING = 2  # a target's and a drafter's cache
_NICE = 10
_LOOK_S = 0.01
_STOP_S = 5.0  # time for a piece of a write to end after it was told to stop


class BackgroundSaver:
    """Runs jobs one after another in a daemon thread. Of the waiting jobs, only the newest `WAITING` stay.

    `submit` neither waits nor locks, so that a finaliser may call it. When the interpreter ends, waiting jobs are still
    run, for a bounded time.

    Args:
        exit_s: seconds by which the end of the interpreter may be delayed.
    """

    def __init__(self, exit_s: float = 30.0) -> None:
        self._waiting: deque[Job] = deque(maxlen=WAITING)
        self._wake: SimpleQueue[bool] = SimpleQueue()
        self._exit_s = exit_s
        self._closing = self._cancelled = self._busy = False
        self._thread = threading.Thread(target=self._run, name="rapid prefix saver", daemon=True)
        self._thread.start()
        atexit.register(self._at_exit)

    def submit(self, job: Job) -> None:
        """Run `job` soon. If too many jobs wait, it replaces the oldest one."""
        if not self._closing:
            self._waiting.append(job)
            self._wake.put(True)

    def wait(self) -> None:
        """Return when nothing waits and nothing is being written, or the thread has ended."""
        while (self._waiting or self._busy) and self._thread.is_alive():
            time.sleep(_LOOK_S)

    def close(self, timeout: float) -> bool:
        """Finish the waiting jobs, but stop after `timeout` seconds. Return whether all were finished."""
        self._closing = True
        atexit.unregister(self._at_exit)
        self._wake.put(False)
        deadline = time.monotonic() + timeout
        self._thread.join(max(0.0, deadline - time.monotonic()))
        finished = not self._thread.is_alive()
        # The thread must not be inside torch when the interpreter ends: that can abort the process.
        self._cancelled = True
        self._thread.join(_STOP_S)
        return finished

    def end(self) -> None:
        """Let the thread end when the waiting jobs are done. This call does not wait."""
        self._closing = True
        self._wake.put(False)

    def _at_exit(self) -> None:
        self.close(self._exit_s)

    def _run(self) -> None:
        if sys.platform == "linux":
            with suppress(OSError):  # on Linux, a thread has a priority of its own
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while not (self._closing and not self._waiting):
            self._busy = False
            self._wake.get()
            self._busy = True  # before the job leaves the queue; see `wait`
            if not self._waiting:
                continue  # a newer job has taken this one's place
            job = self._waiting.popleft()
            try:
                if not self._cancelled:
                    job(lambda: not self._cancelled)
            except Exception as error:  # later saves may work, whatever the error is
                warnings.warn(f"a prefix was not kept on disk: {error!r}", RuntimeWarning, stacklevel=1)
            del job  # it holds a KV cache
