"""Kernels that take turns with PyTorch's products run in its threads, not in threads of their own.

PyTorch's OpenMP lets its threads spin for about a millisecond when they have nothing to do. Threads of another pool
then wait for a core, and the other way round, at each of the hundreds of turns of a prefill.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from rapid_integrations.kernels.cpu.library import loaded_library

_FUNCTIONS = (
    *("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads"),
    *("omp_get_max_threads", "omp_in_parallel", "omp_get_dynamic"),
)
_telling = threading.Lock()
_told: set[int] = set()  # handles of the libraries that know about OpenMP, or that there is none


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
