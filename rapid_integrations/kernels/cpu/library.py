"""Compile the kernels once for a machine, and load them.

The library is kept under a hash of its sources, the compiler, the flags and the processor, in `$RAPID_HOME/kernels` or
the user's cache folder. It speaks plain C through ctypes, so that no version of PyTorch or Python matters to it.

Without a compiler, a library that lies there is loaded if it was made of these sources, with these flags, for a
processor that has nothing which this one lacks: an image can ship it.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import logging
import os
import platform
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from rapid_integrations.config import home
from rapid_integrations.kernels.cpu.interface import SOURCES, opened, sources_key
from rapid_integrations.progress import OnProgress, ignore_progress

logger = logging.getLogger(__name__)

SWITCH = "RAPID_NATIVE"
STAGE = "compiling kernels"
_FLAGS = ("-O3", "-march=native", "-std=c++17", "-pthread", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
_COMPILE_SECONDS = 300


@dataclass(frozen=True)
class _Outcome:
    library: ctypes.CDLL | None
    reason: str = ""


_lock = threading.Lock()
_outcome: _Outcome | None = None  # of the process


def native_library(on_progress: OnProgress = ignore_progress) -> ctypes.CDLL | None:
    """Return the kernels, compiled now if they never were (some seconds); None where there are none.

    `why_not_native` then says why. RAPID_NATIVE=0 does without them.

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
        before, _outcome = _outcome, _Outcome(None, "they are switched off")
    try:
        yield
    finally:
        with _lock:
            _outcome = before


def why_not_native() -> str:
    """Return why `native_library` has nothing to give; empty where it has."""
    return _get(ignore_progress).reason


def _get(on_progress: OnProgress) -> _Outcome:
    if os.environ.get(SWITCH, "1") == "0":
        return _Outcome(None, f"{SWITCH}=0 is set")
    global _outcome
    with _lock:
        if _outcome is None:
            _outcome = _load(on_progress)
            if _outcome.library is None:
                logger.warning(
                    "decoding runs on PyTorch's operators, which took 2.5 times as long as this package's kernels "
                    "(measured with bfloat16 weights): %s (%s=0 silences this)",
                    _outcome.reason,
                    SWITCH,
                )
        return _outcome


def _load(on_progress: OnProgress) -> _Outcome:
    compiler = next(
        filter(None, map(shutil.which, filter(None, (os.environ.get("CXX"), "c++", "g++", "clang++")))), None
    )
    if compiler is None:
        return _ready()
    try:
        name = _name(compiler)
        with _compiling(on_progress) as compiling:
            try:
                return _kept(compiler, name, compiling)
            except OSError as error:  # nowhere to keep it, or not to be run or trusted there
                logger.info("compiled kernels are not kept: %s", error)
                with tempfile.TemporaryDirectory(prefix="rapid-kernels-") as temporary:
                    compiling()
                    _compile(compiler, Path(temporary) / name)
                    return _open(Path(temporary) / name)
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or "").strip().splitlines() or [str(error)]
        return _Outcome(None, f"{compiler} did not compile them: {lines[0]}")
    except (OSError, subprocess.TimeoutExpired) as error:
        return _Outcome(None, f"what {compiler} makes of them cannot be loaded: {error}")


@contextmanager
def _compiling(on_progress: OnProgress) -> Iterator[Callable[[], None]]:
    """Yield what reports that compiling begins; its end is reported behind the block."""
    begun = False

    def begin() -> None:
        nonlocal begun
        if not begun:
            begun = True
            on_progress(STAGE, 0, 1)

    try:
        yield begin
    finally:
        if begun:
            on_progress(STAGE, 1, 1)


def _ready() -> _Outcome:
    """Load, without a compiler, a library that lies in the cache folder and fits this processor."""
    folder, reasons = _cache_folder(), []
    for path in sorted(folder.glob(f"kernels-{_source_key()}-*.so")):
        try:
            _require_own(folder)
            made_for = json.loads(_about_file(path).read_text())
            if made_for["machine"] != platform.machine():
                reasons.append(f"{path.name} was made for {made_for['machine']}")
            elif lacking := sorted(set(made_for["features"]) - _features()):
                reasons.append(f"{path.name} needs a processor with {', '.join(lacking[:5])}")
            else:
                return _open(path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            reasons.append(f"{path.name}: {error}")
    found = f"of those in {folder}, {'; '.join(reasons)}" if reasons else f"none of this version lies in {folder}"
    return _Outcome(None, f"no C++ compiler was found (on Debian or Ubuntu: apt install g++), and {found}")


def _kept(compiler: str, name: str, compiling: Callable[[], None]) -> _Outcome:
    """Load the library from the cache folder, made there first if need be.

    Raises:
        OSError: the folder cannot be used.
    """
    path = _cache_folder() / name
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)  # another user of an image may read and run it
    _require_own(path.parent)
    if path.exists():
        try:
            return _open(path)
        except OSError as error:
            logger.info("%s is compiled anew: %s", path, error)
    compiling()
    _compile(compiler, path)
    return _open(path)


def _require_own(path: Path) -> None:
    """Raise OSError for what anybody but this user or root could have written: code is run from it."""
    if not hasattr(os, "geteuid"):
        return
    status = path.lstat()
    if status.st_uid not in (os.geteuid(), 0) or status.st_mode & 0o022:
        raise OSError(f"{path} belongs to somebody else, or others may write to it")


def _open(path: Path) -> _Outcome:
    """Load a library.

    Raises:
        OSError: it is not what was compiled (to map a damaged file would kill the process), or cannot be run there.
    """
    _require_own(path)
    if _checksum_file(path).read_bytes() != _checksum(path).encode():
        raise OSError(f"the checksum of {path} is wrong")
    return _Outcome(opened(path))


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _checksum_file(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _about_file(path: Path) -> Path:
    return path.with_suffix(".json")


def _about() -> str:
    """Return what a library that is compiled here needs of a processor."""
    return json.dumps({"machine": platform.machine(), "features": sorted(_features())})


def _compile(compiler: str, target: Path, *flags: str) -> None:
    """Write the library, whole or not at all: several processes may do so at once."""
    handle, scratch = tempfile.mkstemp(dir=target.parent, suffix=".so")
    os.close(handle)
    try:
        command = [compiler, *_FLAGS, *flags, f'-DRAPID_SOURCES="{sources_key()}"', *map(str, SOURCES), "-o", scratch]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_COMPILE_SECONDS)
        checksum = Path(scratch).with_suffix(".sha256")
        checksum.write_text(_checksum(Path(scratch)))
        about = Path(scratch).with_suffix(".json")
        about.write_text(_about())
        os.chmod(scratch, 0o755)
        os.replace(scratch, target)
        os.replace(checksum, _checksum_file(target))
        os.replace(about, _about_file(target))
    finally:
        Path(scratch).unlink(missing_ok=True)


def _name(compiler: str) -> str:
    return f"kernels-{_source_key()}-{_key(compiler)}.so"


def _source_key() -> str:
    """Return a hash of what is compiled, and how."""
    return _hash(sources_key(), " ".join(_FLAGS))


def _key(compiler: str) -> str:
    """Return a hash of what else decides the machine code: a cache folder may be shared by unlike machines."""
    version = subprocess.run([compiler, "--version"], check=True, capture_output=True, text=True, timeout=60).stdout
    return _hash(compiler, version, platform.machine(), _processor())


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _features() -> set[str]:
    """Return what this processor can do, as the system lists it; empty where it does not."""
    lines = _processor().splitlines()
    return {word for line in lines if line.startswith(("flags", "Features")) for word in line.partition(":")[2].split()}


@lru_cache(maxsize=1)
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(
        next((line for line in lines if line.startswith(key)), "") for key in ("model name", "flags", "Features")
    )


def _cache_folder() -> Path:
    return home() / "kernels"
