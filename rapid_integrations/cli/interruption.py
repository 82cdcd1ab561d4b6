"""Stop an answer on Ctrl-C, between two forward passes.

A `KeyboardInterrupt` can be raised anywhere, even inside a terminal library's clean-up, which then leaves the terminal
in a wrong state. So Ctrl-C sets a flag, which is checked when nothing is half done.
"""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

INTERRUPTED = 130
"""The exit status that a shell reports for a program that Ctrl-C ended."""

TERMINATED = 143
"""The same for SIGTERM."""


_AGAIN_S = 0.01  # behind the callback that swallowed it


class AnswerStopped(BaseException):
    """Unwinds an answer that was stopped. Like `KeyboardInterrupt`, it is not an `Exception`."""


class StopWish:
    """Catches Ctrl-C within its `with` block. Call it, or use it as an `OnProgress`, at points where stopping is safe.

    A second Ctrl-C before such a call interrupts at once. It works only in the main thread.

    Raises:
        AnswerStopped: a call comes after Ctrl-C was pressed.
    """

    def __init__(self) -> None:
        self._wished = False
        self._before: Any = None

    def __call__(self, *_: object) -> None:
        """Stop if Ctrl-C was pressed."""
        if self._wished:
            raise AnswerStopped

    def __enter__(self) -> Self:
        self._wished = False
        self._before = signal.signal(signal.SIGINT, self._wish)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _wish(self, number: int, frame: FrameType | None) -> None:
        if self._wished:
            raise KeyboardInterrupt
        self._wished = True


@contextmanager
def never_swallowed() -> Iterator[None]:
    """Within the block, send Ctrl-C again if Python swallows it.

    It swallows what is raised in a weak reference's callback or a `__del__`, and importlib has such a callback for each
    module: the program would go on behind a traceback, as if nothing had been pressed. The hook runs within that
    callback, so another thread sends it a moment later.
    """
    before = sys.unraisablehook

    def again(what: sys.UnraisableHookArgs) -> None:
        if not issubclass(what.exc_type, KeyboardInterrupt):
            before(what)
            return
        later = threading.Timer(_AGAIN_S, _interrupt)
        later.daemon = True
        later.start()

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = before


def _interrupt() -> None:
    if hasattr(signal, "pthread_kill") and (main := threading.main_thread().ident) is not None:
        signal.pthread_kill(main, signal.SIGINT)  # wakes it, too
    else:
        _thread.interrupt_main()


@contextmanager
def ends_in_order() -> Iterator[None]:
    """Unwind the block on SIGTERM, so that it removes its files and ends its processes; the exit status is 143.

    It works only in the main thread, and does nothing elsewhere.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(TERMINATED)
