"""Computing in a forked child: PyTorch's threads are OpenMP's, and they do not survive a fork.

A child in which the thread that forked computes with several threads waits for ever, if that thread has done so in the
parent (measured: torch 2.13, GNU OpenMP). With one thread, in another thread, or where the parent had not computed yet,
all is well. OpenMP does not say which it is, so that thread is tried out: in a child of its own.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings

from rapid_integrations.errors import ForkedProcessError

_TRIAL_S = 5.0  # for a product that takes milliseconds

_survivor: int | None = None  # in a forked child: the one thread that it inherited
_tried = False


def _in_child() -> None:
    global _survivor, _tried
    _survivor, _tried = threading.get_ident(), False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def require_threads() -> None:
    """Make sure that this thread can compute.

    Raises:
        ForkedProcessError: it would wait for threads that the parent had.
    """
    global _tried
    if _survivor is None or _tried or threading.get_ident() != _survivor:
        return
    import torch

    if torch.get_num_threads() == 1:
        return
    if not _trial_ends():
        raise ForkedProcessError(
            f"process {os.getpid()} was forked from one that had computed with PyTorch on several threads; they do not "
            "survive a fork, and computing here would wait for them for ever. Start processes with multiprocessing's "
            "method 'spawn', fork before the parent computes anything, or call torch.set_num_threads(1) in the child "
            "before anything else"
        )
    _tried = True


def _trial_ends() -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads may run; the child uses none of them
        child = os.fork()
    if child == 0:
        try:
            import torch

            torch.ones(1 << 20).exp().sum()  # enough elements for every thread to be wanted
        finally:
            os._exit(0)
    end = time.monotonic() + _TRIAL_S
    while time.monotonic() < end:
        if os.waitpid(child, os.WNOHANG)[0]:
            return True
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False
