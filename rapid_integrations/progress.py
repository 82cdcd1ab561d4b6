"""How long work reports itself: one callback, the same everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

OnProgress: TypeAlias = Callable[[str, int, int], None]
"""Called with (stage, done, total): bytes of a download, windows of text embedded, tokens prefilled."""


def ignore_progress(stage: str, done: int, total: int) -> None:
    """Report to nobody."""
