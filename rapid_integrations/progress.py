"""How long work reports itself: one callback, the same everywhere. Imports nothing else by itself."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from typing import TypeAlias

OnProgress: TypeAlias = Callable[[str, int, int], None]
"""Called with (stage, done, total): bytes of a download, windows of text embedded, tokens prefilled."""


def ignore_progress(stage: str, done: int, total: int) -> None:
    """Report to nobody."""


def import_progress_bars() -> None:
    """Import tqdm, which transformers and its like import first, without its call for widgets.

    In a notebook without ipywidgets its bars are text, which is fine; it warns of that at every user's first import.
    """
    if "IPython" not in sys.modules:
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        try:
            import_module("tqdm.auto")
        except ImportError:
            pass  # then nobody warns
