"""Turns Ctrl-C into a request to stop an answer, which takes effect between two forward passes.

A `KeyboardInterrupt` may arrive anywhere, even inside a terminal library's own clean-up, which then leaves the terminal
in a bad state. So the request is checked only at points where nothing is half done.
"""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any, Self

INTERRUPTED = 130
"""The exit status that a shell reports for a program that Ctrl-C ended."""


class AnswerStopped(BaseException):
    """Ends an answer that the user stopped. Like `KeyboardInterrupt`, it is not an `Exception`."""


class StopWish:
    """Catches Ctrl-C within its `with` block. Call it, or use it as an `OnProgress`, at points that are safe to stop.

    A second Ctrl-C before the next such call interrupts at once. It works only in the main thread.

    Raises:
        AnswerStopped: by a call after Ctrl-C was pressed.
    """

    def __init__(self) -> None:
        self._wished = False
        self._before: Any = None

    def __call__(self, *_: object) -> None:
        """Raise `AnswerStopped` if Ctrl-C was pressed."""
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
