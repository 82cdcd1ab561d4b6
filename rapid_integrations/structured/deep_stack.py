"""Compiling grammars on a stack of known size: llguidance recurses, and running out of stack ends the process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from rapid_integrations.errors import ConfigurationError

T = TypeVar("T")

STACK_BYTES = 256 * 1024 * 1024
"""Of the thread that compiles. Address space, not memory: only what is used of it is ever touched."""

SECONDS = 120.0
"""That it may take. The bounds keep all that we know of under 20 seconds; this is for what we do not know of."""

_lock = threading.Lock()  # the size is a setting of the process, for threads that start while it holds


def on_a_deep_stack(work: Callable[[], T]) -> T:
    """Return what `work` returns, or raise what it raises, run in a thread with a large stack.

    Raises:
        ConfigurationError: it takes longer than `SECONDS`. The thread goes on until it is done: it cannot be stopped.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="rapid-grammar", daemon=True)
    with _lock:
        before = threading.stack_size(STACK_BYTES)
        try:
            thread.start()
        finally:
            threading.stack_size(before)
    thread.join(SECONDS)
    if thread.is_alive():
        raise ConfigurationError(
            f"the schema or grammar takes longer than {SECONDS:.0f} seconds to compile: simplify it, or describe it in "
            "the prompt and check the answer yourself"
        )
    if errors:
        raise errors[0]
    return results[0]
