"""Computing in a forked child: PyTorch's threads are OpenMP's, and they do not survive a fork.

Each thread has a pool of its own there. A child whose thread that forked computes with several threads therefore waits
for ever, if that thread had done so in the parent (measured: torch 2.13, GNU OpenMP). A thread that was started in the
child has none of this, so what computes is handed to one.
"""

from __future__ import annotations

import contextvars
import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_inherited: int | None = None  # in a forked child: the one thread that it has from its parent
_threads: ThreadPoolExecutor | None = None


def _in_child() -> None:
    global _inherited, _threads
    _inherited, _threads = threading.get_ident(), ThreadPoolExecutor(thread_name_prefix="rapid in a forked child")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def computes(function: Callable[P, T]) -> Callable[P, T]:
    """Have a function run in a thread of the child's own, where it is called in the one that a child inherited."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        if _threads is None or threading.get_ident() != _inherited:
            return function(*args, **kwargs)
        context = contextvars.copy_context()
        return _threads.submit(functools.partial(context.run, function, *args, **kwargs)).result()

    return run
