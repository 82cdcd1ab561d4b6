"""The call stack, for the few places in which the answer to a framework depends on the caller."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FrameType


def callers() -> Iterator[tuple[str, FrameType]]:
    """Yield module name and frame of each caller, starting with the function that calls this one."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield str(frame.f_globals.get("__name__")), frame
        frame = frame.f_back
