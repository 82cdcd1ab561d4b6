"""Computing in a forked child. PyTorch uses OpenMP's threads, which do not survive a fork.

In OpenMP, each thread has its own pool of threads. If the thread that forks has computed with several threads before,
its pool is gone in the child, and it waits for ever when it computes there (measured: torch 2.13, GNU OpenMP). A thread
that was started in the child has no such pool, so computation runs in one.
"""

from __future__ import annotations

import contextvars
import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from rapid_integrations.kernels.cpu.torchs_threads import lost_in_a_fork

P = ParamSpec("P")
T = TypeVar("T")


@functools.cache
def _threads(process: int) -> ThreadPoolExecutor:
    """Return the threads of a process; those of the one that it was forked from are gone."""
    return ThreadPoolExecutor(thread_name_prefix="rapid in a forked child")


def computes(function: Callable[P, T]) -> Callable[P, T]:
    """Run a function in a new thread of a forked child if it is called in the thread that forked."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        if not lost_in_a_fork():
            return function(*args, **kwargs)
        context = contextvars.copy_context()
        return _threads(os.getpid()).submit(functools.partial(context.run, function, *args, **kwargs)).result()

    return run
