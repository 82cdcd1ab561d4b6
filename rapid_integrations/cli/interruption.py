"""Stop an answer on Ctrl-C, between two forward passes.

A `KeyboardInterrupt` can be raised anywhere, even inside a terminal library's clean-up, which then leaves the terminal
in a wrong state. So Ctrl-C sets a flag, which is checked when nothing is half done.
"""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any, Self

INTERRUPTED = 130
"""The exit status that a shell reports for a program that Ctrl-C ended."""


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
