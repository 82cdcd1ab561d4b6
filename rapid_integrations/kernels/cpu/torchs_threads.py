"""PyTorch's own threads: kernels share them, and nobody holds them without using them.

Kernels that take turns with PyTorch's products run in its threads, not in threads of their own: PyTorch's OpenMP lets
its threads spin for about a millisecond when they have nothing to do. Threads of another pool then wait for a core, and
the other way round, at each of the hundreds of turns of a prefill.

Each thread that calls PyTorch has a pool of its own. If the pools together hold more threads than there are processors,
GNU OpenMP puts them to sleep at once between two products, also those of the one pool that computes. Waking them takes
longer than many products do. So whoever is done with PyTorch for a while lets go of its pool (`let_go_of_threads`).
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

import torch

from rapid_integrations.kernels.cpu.library import loaded_library

_FUNCTIONS = (
    *("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads"),
    *("omp_get_max_threads", "omp_in_parallel", "omp_get_dynamic"),
)
_SOFT_PAUSE: Final = 1  # omp_pause_soft: settings stay
_telling = threading.Lock()
_told: set[int] = set()  # handles of the libraries that know about OpenMP, or that there is none
_forked: int | None = None  # in a forked child: the identifier of the thread that forked


def _in_child() -> None:
    global _forked
    _forked = threading.get_ident()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def lost_in_a_fork() -> bool:
    """Whether the calling thread forked this process. The threads that PyTorch had for it did not survive that."""
    return threading.get_ident() == _forked


@contextmanager
def on_torchs_threads() -> Iterator[None]:
    """Run the kernels that this thread calls inside in PyTorch's threads, if these are GNU OpenMP's."""
    library = loaded_library()
    if library is None:
        yield
        return
    if library._handle not in _told:
        with _telling:  # the kernels of another engine's thread may begin in this moment
            _tell(library)
    library.rapid_take_torchs_threads(1)
    try:
        yield
    finally:
        library.rapid_take_torchs_threads(0)


def let_go_of_threads() -> None:
    """End the threads that PyTorch holds for the calling thread; its next product makes them anew, in about 0.2 ms.

    Safe at any time, and cheap if there are none. It does nothing if PyTorch does not compute with GNU OpenMP, and in
    the thread of a forked child that forked: it would wait for ever for threads that did not survive.
    """
    if not lost_in_a_fork() and (pause := _pause()) is not None:
        pause(_SOFT_PAUSE)


@cache
def _pause() -> Any:
    openmp = torchs_openmp()
    # Without it (OpenMP before 5.0) pools can't be ended.
    return None if openmp is None else getattr(openmp, "omp_pause_resource_all", None)


def _tell(library: ctypes.CDLL) -> None:
    if library._handle in _told:
        return
    if (openmp := torchs_openmp()) is not None:
        addresses = [ctypes.cast(getattr(openmp, name), ctypes.c_void_p) for name in _FUNCTIONS]
        library.rapid_use_openmp((ctypes.c_void_p * len(_FUNCTIONS))(*addresses))
    _told.add(library._handle)


def torchs_openmp() -> ctypes.CDLL | None:
    """Return the GNU OpenMP that PyTorch computes with, as it is loaded; None if it computes with another one."""
    if not hasattr(os, "RTLD_NOLOAD"):
        return None
    try:
        lines = Path("/proc/self/maps").read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return None
    paths = {Path(line.split(maxsplit=5)[5]) for line in lines if "omp" in line and line.count("/")}
    paths = {path for path in paths if path.name.startswith(("libgomp", "libiomp", "libomp"))}
    own = {path for path in paths if Path(torch.__file__).parent in path.parents}  # other packages bring theirs
    found = own or paths
    if len(found) != 1 or not (path := found.pop()).name.startswith("libgomp"):
        return None
    try:
        library = ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
        return library if all(hasattr(library, name) for name in _FUNCTIONS) else None
    except OSError:
        return None
