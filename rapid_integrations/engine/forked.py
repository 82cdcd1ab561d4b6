"""Computing in a forked child. PyTorch uses OpenMP's threads, which do not survive a fork.

In OpenMP, each thread has its own pool of threads. If the thread that forks has computed with several threads before,
its pool is gone in the child, and it waits for ever when it computes there (measured: torch 2.13, GNU OpenMP). A thread
that was started in the child has no such pool, so computation runs in one.
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

_inherited: int | None = None  # in a forked child: the identifier of the thread that forked
_threads: ThreadPoolExecutor | None = None


def _in_child() -> None:
    global _inherited, _threads
    _inherited, _threads = threading.get_ident(), ThreadPoolExecutor(thread_name_prefix="rapid in a forked child")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def computes(function: Callable[P, T]) -> Callable[P, T]:
    """Run a function in a new thread of a forked child if it is called in the thread that forked."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        if _threads is None or threading.get_ident() != _inherited:
            return function(*args, **kwargs)
        context = contextvars.copy_context()
        return _threads.submit(functools.partial(context.run, function, *args, **kwargs)).result()

    return run
