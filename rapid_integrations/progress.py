"""Progress reports of long work: one callback type for all stages. Imports none of this package's modules."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from typing import TypeAlias

OnProgress: TypeAlias = Callable[[str, int, int], None]
"""Called with (stage, done, total). They count downloaded bytes, embedded windows of text, or prefilled tokens.

In the stage "waiting", a request waits for memory. `total` is its first place in the queue, and `done` says by how many
places it has moved.
"""


def ignore_progress(stage: str, done: int, total: int) -> None:
    """Ignore the report."""


def import_progress_bars() -> None:
    """Import tqdm without its warning about missing widgets, before transformers or another library imports it.

    In a notebook without ipywidgets, tqdm shows its bars as text and warns of that when it is imported.
    """
    if "IPython" not in sys.modules:
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        try:
            import_module("tqdm.auto")
        except ImportError:
            pass  # without tqdm there is no warning
