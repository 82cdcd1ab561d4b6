"""Who is calling: for the few places where a framework asks something and does not say what for."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FrameType


def callers() -> Iterator[tuple[str, FrameType]]:
    """Yield the module's name and the frame of each caller of the function that asks, the nearest first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield str(frame.f_globals.get("__name__")), frame
        frame = frame.f_back
