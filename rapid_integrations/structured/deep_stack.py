"""Compile grammars on a stack of known size. llguidance recurses, and a stack overflow crashes the process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from rapid_integrations.errors import ConfigurationError

T = TypeVar("T")

STACK_BYTES = 256 * 1024 * 1024
"""Stack size of the thread that compiles. This is address space: only the used part takes memory."""

SECONDS = 120.0
"""Time limit. The bounds keep all known cases under 20 seconds; this limit is for unknown ones."""

_lock = threading.Lock()  # the stack size is a setting of the process for threads that start meanwhile


def on_a_deep_stack(work: Callable[[], T]) -> T:
    """Run `work` in a thread with a large stack. Return its result, or raise its error.

    Raises:
        ConfigurationError: the work takes longer than `SECONDS`. The thread cannot be stopped, so it runs to its end.
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
