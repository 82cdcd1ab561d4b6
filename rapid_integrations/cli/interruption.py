"""Ctrl-C as a wish to stop an answer, granted between two forward passes.

A `KeyboardInterrupt` may come up anywhere, inside a terminal library's own clean-up, too, which then leaves the
terminal as it should not be. A wish is looked at where nothing is half done.
"""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any, Self

INTERRUPTED = 130
"""The exit status that a shell reports for a program that Ctrl-C ended."""


class AnswerStopped(BaseException):
    """The wish is granted: unwinds an answer. Not an `Exception`, as `KeyboardInterrupt` is none."""


class StopWish:
    """Catches Ctrl-C within its `with` block; call it, or use it as an `OnProgress`, where stopping is safe.

    A second Ctrl-C, before the first is granted, interrupts at once. Only for the main thread.

    Raises:
        AnswerStopped: from a call, once Ctrl-C was pressed.
    """

    def __init__(self) -> None:
        self._wished = False
        self._before: Any = None

    def __call__(self, *_: object) -> None:
        """Grant the wish, if there is one."""
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
