"""Detect out-of-memory errors. torch raises one type per device, and a plain RuntimeError on CPU."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rapid_integrations.errors import OutOfMemoryError, RapidError

# Messages of torch's allocators for CPU, MPS, and oneDNN's own buffers.
_SAID = ("DefaultCPUAllocator: can't allocate memory", "not enough memory: you tried to allocate", "out of memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that a device is out of memory."""
    if isinstance(error, MemoryError) or any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _SAID)


@contextmanager
def memory_errors_taught(doing: str, way_out: str, free: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Turn an out-of-memory error into `OutOfMemoryError`, whose traceback holds no tensor of the failed work.

    Args:
        doing: the work that needed the memory ("reading a prompt of 9,000 tokens").
        way_out: what the user can do.
        free: is called first.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, RapidError) or not is_out_of_memory(error):
            raise
        free()
        # The frames of the failed calls hold the caches and activations that the next request needs, and whoever
        # handles the error holds its traceback.
        traceback.clear_frames(error.__traceback__)
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise OutOfMemoryError(f"there was not enough memory for {doing}: {reason}. {way_out}") from error
