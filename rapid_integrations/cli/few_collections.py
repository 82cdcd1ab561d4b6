"""Lets a short-lived process start and end without the garbage collector."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_NEW_OBJECTS = 100_000  # objects that are made before the garbage collector looks at the new ones; Python's own is 700


@contextmanager
def few_collections() -> Iterator[None]:
    """Let the garbage collector run rarely in a process that ends with the block.

    Imported modules are a million objects that stay. Looking at them again and again takes a fifth of the start, and
    looking at them once more when the process ends takes half a second.
    """
    gc.set_threshold(_NEW_OBJECTS)
    try:
        yield
    finally:
        gc.freeze()
