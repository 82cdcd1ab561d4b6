"""Which kernels a process runs: those of the wheel, those that were compiled on this machine, or none.

They speak plain C through ctypes, so that no version of PyTorch or Python matters to them.
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rapid_integrations.kernels.cpu.compiler import NoKernelsError, compiled, how_to_compile, kept
from rapid_integrations.kernels.cpu.interface import FOLDER, opened
from rapid_integrations.kernels.cpu.variants import processor_features, variants
from rapid_integrations.progress import OnProgress, ignore_progress

logger = logging.getLogger(__name__)

SWITCH = "RAPID_NATIVE"
COMPILED: Final = "compiled"  # the name of what was compiled on this machine, beside those of the variants


@dataclass(frozen=True)
class _Outcome:
    library: ctypes.CDLL | None
    variant: str = ""
    reason: str = ""


_lock = threading.Lock()
_outcome: _Outcome | None = None  # of the process


def native_library(on_progress: OnProgress = ignore_progress) -> ctypes.CDLL | None:
    """Return the kernels; None if there are none, which `why_not_native` then explains.

    RAPID_NATIVE=0 does without them. RAPID_NATIVE=build compiles them for this machine if they never were (some
    seconds), as a checkout of the sources always does; otherwise they are those that came with the package.

    Args:
        on_progress: called with ("compiling kernels", 0 or 1, 1) if that is what takes the time.
    """
    return _get(on_progress).library


def loaded_library() -> ctypes.CDLL | None:
    """Return the kernels if this process has loaded them already; compiles nothing."""
    found = _outcome
    return None if found is None else found.library


@contextmanager
def without_kernels() -> Iterator[None]:
    """Do inside, in the whole process, as if they could not be had: to compare."""
    global _outcome
    with _lock:
        before, _outcome = _outcome, _Outcome(None, reason="they are switched off")
    try:
        yield
    finally:
        with _lock:
            _outcome = before


def uses_matrix_units() -> bool:
    """Whether the loaded kernels compute prompts on the processor's matrix units (AMX)."""
    library = loaded_library()
    return library is not None and bool(library.rapid_uses_amx())


def multiplies_prompts() -> bool:
    """Whether the loaded kernels compute whatever a prompt needs faster than PyTorch's operators do.

    They do on matrix units, and where PyTorch emulates bfloat16.
    """
    library = loaded_library()
    return library is not None and bool(library.rapid_multiplies_prompts())


@contextmanager
def without_matrix_units() -> Iterator[None]:
    """Compute inside, in the whole process, as on a processor without matrix units: to compare."""
    library = loaded_library()
    used = uses_matrix_units()
    if library is not None:
        library.rapid_use_amx(0)
    try:
        yield
    finally:
        if library is not None:
            library.rapid_use_amx(used)


def why_not_native() -> str:
    """Return why `native_library` has nothing to give; empty if it has."""
    return _get(ignore_progress).reason


def native_variant() -> str:
    """Return which kernels `native_library` gives: "avx512_bf16", say, or "compiled"; empty if it gives none."""
    return _get(ignore_progress).variant


def _get(on_progress: OnProgress) -> _Outcome:
    if os.environ.get(SWITCH, "1") == "0":
        return _Outcome(None, reason=f"{SWITCH}=0 is set")
    global _outcome
    with _lock:
        if _outcome is None:
            _outcome = _load(on_progress)
            if _outcome.library is None:
                logger.warning(
                    "decoding runs on PyTorch's operators, 2.5 times slower than on this package's kernels (measured "
                    "with bfloat16 weights): %s. What helps: %s (%s=0 silences this)",
                    _outcome.reason,
                    how_to_compile(),
                    SWITCH,
                )
        return _outcome


def _load(on_progress: OnProgress) -> _Outcome:
    try:
        if os.environ.get(SWITCH) == "build" or is_checkout():
            return _Outcome(compiled(on_progress), COMPILED)
    except NoKernelsError as error:
        return _Outcome(None, reason=str(error))
    reasons = []
    for variant in variants():
        if not variant.path.exists():
            continue
        if lacking := sorted(variant.needs - processor_features()):
            reasons.append(f"{variant.name} needs a processor with {', '.join(lacking[:5])}")
            continue
        try:
            return _Outcome(opened(variant.path), variant.name)
        except OSError as error:
            reasons.append(str(error))
    try:
        return _Outcome(kept(), COMPILED)
    except NoKernelsError as error:
        brought = "; ".join(reasons) or "the package was installed where there was no C++ compiler to build its kernels"
        return _Outcome(None, reason=f"{brought}, and {error}")


def is_checkout() -> bool:
    """Whether this package lies in a checkout, whose sources are compiled whenever they have changed."""
    root: Path = FOLDER.parents[2]
    return all((root / name).is_file() for name in ("CMakeLists.txt", "pyproject.toml"))
