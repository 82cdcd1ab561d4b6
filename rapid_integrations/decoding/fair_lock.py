"""A fair lock between requests: one forward pass at a time, first come first served."""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType

from rapid_integrations.errors import EngineClosedError, SharedResource


class FairLock(SharedResource):
    """A lock that is handed over in the order in which it was requested.

    It is held for one prefill chunk or one decoding round, never between them. So a stream that nobody drains, or a
    request inside a loop over another stream, does not block the next request. After `close`, acquiring it raises
    `EngineClosedError`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._busy = False
        self._closed = False
        self._owner: int | None = None  # the thread whose turn it is
        self._waiting: deque[threading.Event] = deque()

    def __enter__(self) -> None:
        with self._lock:
            if self._closed:
                raise EngineClosedError
            if not self._busy:
                self._busy, self._owner = True, threading.get_ident()
                return
            mine = threading.Event()
            self._waiting.append(mine)
        try:
            mine.wait()
        except BaseException:  # on Ctrl-C while waiting, leave the queue, or pass the turn on if it has just come
            with self._lock:
                if mine in self._waiting:
                    self._waiting.remove(mine)
                else:
                    self._pass_on()
            raise
        with self._lock:
            if self._closed:
                self._pass_on()
                raise EngineClosedError
            self._owner = threading.get_ident()

    def close(self) -> None:
        """Give no more turns, and wait for the present one to end (unless this thread holds it)."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if not self._busy or self._owner == threading.get_ident():
                return
            mine = threading.Event()
            self._waiting.appendleft(mine)
        mine.wait()
        with self._lock:
            self._pass_on()  # wakes those who wait, so they raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._pass_on()

    def _pass_on(self) -> None:
        self._owner = None
        if self._waiting:
            self._waiting.popleft().set()
        else:
            self._busy = False
