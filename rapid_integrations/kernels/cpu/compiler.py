"""Compile the kernels for this machine, and keep them: for developers, and for installations that came without.

The library is kept under a hash of its sources, the compiler, the flags and the processor, in `$RAPID_HOME/kernels` or
the user's cache folder. Without a compiler, one that lies there is loaded if it was made of these sources, with these
flags, for a processor that has nothing which this one lacks: an image can ship it.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import json
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from rapid_integrations.config import home
from rapid_integrations.kernels.cpu.interface import SOURCES, SUFFIX, opened, sources_key
from rapid_integrations.kernels.cpu.variants import machine, processor_description, processor_features
from rapid_integrations.progress import OnProgress

logger = logging.getLogger(__name__)

STAGE = "compiling kernels"
COMMAND = "python -m rapid_integrations.kernels.cpu"
_FLAGS = (
    # Without a width loops become vectors of 256 bits where there are those of 512.
    *(("-mcpu=native",) if machine() == "arm64" else ("-march=native", "-mprefer-vector-width=512")),
    *("-O3", "-std=c++17", "-pthread"),
    *("-fno-math-errno", "-fno-trapping-math", "-shared"),
    *(() if sys.platform == "win32" else ("-fPIC",)),  # code for Windows can be moved anyway
)
_COMPILE_SECONDS = 900  # some ten seconds on an idle machine
_PATIENCE_SECONDS = 180  # with another process that compiles


class NoKernelsError(Exception):
    """The kernels cannot be had. It stays within this folder: PyTorch's operators do the same work."""


# On Windows GCC keeps vectors where the stack is not aligned for them (https://gcc.gnu.org/PR54412), and Microsoft's
# compilers and Clang in their place export nothing and have other flags.
_COMPILERS = () if sys.platform == "win32" else ("c++", "g++", "clang++")


def find_compiler() -> tuple[str, ...] | None:
    """Return the command of a C++ compiler: $CXX, the system's, or the package `ziglang`; None if there is none."""
    for name in filter(None, (os.environ.get("CXX"), *_COMPILERS)):
        if found := shutil.which(name):
            return (found,)
    if importlib.util.find_spec("ziglang") is not None:
        return sys.executable, "-m", "ziglang", "c++"
    return None


def how_to_compile() -> str:
    """Return the one command that gives this machine its kernels."""
    return COMMAND if find_compiler() else f"pip install ziglang && {COMMAND}"


def compiled(on_progress: OnProgress) -> ctypes.CDLL:
    """Return the kernels of this machine, compiled now if they never were (some seconds).

    Raises:
        NoKernelsError: they cannot be had.
    """
    compiler = find_compiler()
    if compiler is None:
        try:
            return kept()
        except NoKernelsError as error:
            without = "no C++ compiler was found (on Debian or Ubuntu: apt install g++)"
            raise NoKernelsError(f"{without}, and {error}") from None
    try:
        name = _name(compiler)
        with _compiling(on_progress) as compiling:
            try:
                return _kept_or_compiled(compiler, name, compiling)
            except OSError as error:  # nowhere to keep it, or not to be run or trusted there
                logger.info("compiled kernels are not kept: %s", error)
                # Windows removes no library that is loaded.
                with tempfile.TemporaryDirectory(prefix="rapid-kernels-", ignore_cleanup_errors=True) as temporary:
                    compiling()
                    compile_to(compiler, Path(temporary) / name)
                    return _trusted(Path(temporary) / name)
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or "").strip().splitlines() or [str(error)]
        raise NoKernelsError(f"{' '.join(compiler)} did not compile them: {lines[0]}") from None
    except subprocess.TimeoutExpired as error:
        raise NoKernelsError(f"{' '.join(compiler)} did not compile them within {error.timeout:.0f} seconds") from None
    except OSError as error:
        raise NoKernelsError(f"what {' '.join(compiler)} makes of them cannot be loaded: {error}") from None


def kept() -> ctypes.CDLL:
    """Load, without a compiler, a library that lies in the cache folder and fits this processor.

    Raises:
        NoKernelsError: none does.
    """
    folder, reasons = _cache_folder(), []
    for path in sorted(folder.glob(f"kernels-{_source_key()}-*{SUFFIX}")):
        try:
            _require_own(folder)
            made_for = json.loads(_about_file(path).read_text())
            if made_for["machine"] != platform.machine():
                reasons.append(f"{path.name} was made for {made_for['machine']}")
            elif lacking := sorted(set(made_for["features"]) - processor_features()):
                reasons.append(f"{path.name} needs a processor with {', '.join(lacking[:5])}")
            else:
                return _trusted(path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            reasons.append(f"{path.name}: {error}")
    found = f"of those in {folder}, {'; '.join(reasons)}" if reasons else f"none of this version lies in {folder}"
    raise NoKernelsError(found)


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


def _kept_or_compiled(compiler: tuple[str, ...], name: str, compiling: Callable[[], None]) -> ctypes.CDLL:
    """Load the library from the cache folder, made there first if need be.

    Raises:
        OSError: the folder cannot be used.
    """
    path = _cache_folder() / name
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)  # another user of an image may read and run it
    _require_own(path.parent)
    if (library := _if_sound(path)) is not None:
        return library
    compiling()
    with _taking_turns(path):
        if (library := _if_sound(path)) is None:  # nobody has made it meanwhile
            compile_to(compiler, path)
            library = _trusted(path)
        return library


@contextmanager
def _taking_turns(path: Path) -> Iterator[None]:
    """Let one process at a time make `path`: processes that start together need not all compile the same.

    Without a lock each makes it for itself, whole or not at all: where the file system has none, or if another process
    holds it for too long. A process that dies gives its lock back.

    Raises:
        OSError: nothing can be written beside `path`.
    """
    from filelock import FileLock, Timeout  # takes 20 ms, which only compiling costs

    with ExitStack() as held:
        with suppress(NotImplementedError, Timeout):
            held.enter_context(FileLock(f"{path}.lock", timeout=_PATIENCE_SECONDS))
        yield


def _if_sound(path: Path) -> ctypes.CDLL | None:
    """Load the library if it is there and whole."""
    if path.exists():
        try:
            return _trusted(path)
        except OSError as error:
            logger.info("%s is compiled anew: %s", path, error)
    return None


def _require_own(path: Path) -> None:
    """Raise OSError for what anybody but this user or root could have written: code is run from it."""
    if not hasattr(os, "geteuid"):
        return
    status = path.lstat()
    if status.st_uid not in (os.geteuid(), 0) or status.st_mode & 0o022:
        raise OSError(f"{path} belongs to somebody else, or others may write to it")


def _trusted(path: Path) -> ctypes.CDLL:
    """Load a library from a folder that is written to at run time.

    Raises:
        OSError: it is not what was compiled (to map a damaged file would kill the process), or cannot be run there.
    """
    _require_own(path)
    if _checksum_file(path).read_bytes() != _checksum(path).encode():
        raise OSError(f"the checksum of {path} is wrong")
    return opened(path)


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _checksum_file(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _about_file(path: Path) -> Path:
    return path.with_suffix(".json")


def _about() -> str:
    """Return what a library that is compiled here needs of a processor."""
    return json.dumps({"machine": platform.machine(), "features": sorted(processor_features())})


def compile_to(compiler: tuple[str, ...], target: Path, *flags: str) -> None:
    """Write the library, whole or not at all: several processes may do so at once.

    Raises:
        OSError, subprocess.CalledProcessError, subprocess.TimeoutExpired: it cannot be made.
    """
    # Some compilers leave more than the library beside it.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="compiling-") as folder:
        made = Path(folder) / target.name
        sources = (f'-DRAPID_SOURCES="{sources_key()}"', *map(str, SOURCES))
        command = [*compiler, *_FLAGS, *flags, *sources, "-o", str(made)]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_COMPILE_SECONDS)
        _checksum_file(made).write_text(_checksum(made))
        _about_file(made).write_text(_about())
        made.chmod(0o755)
        os.replace(made, target)
        os.replace(_checksum_file(made), _checksum_file(target))
        os.replace(_about_file(made), _about_file(target))


def _name(compiler: tuple[str, ...]) -> str:
    return f"kernels-{_source_key()}-{_key(compiler)}{SUFFIX}"


def _source_key() -> str:
    """Return a hash of what is compiled, and how."""
    return _hash(sources_key(), " ".join(_FLAGS))


def _key(compiler: tuple[str, ...]) -> str:
    """Return a hash of what else decides the machine code: a cache folder may be shared by unlike machines."""
    command = [*compiler, "--version"]
    version = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    described = processor_description("model name", "flags", "Features") or platform.processor()
    return _hash(*compiler, version, platform.machine(), described)


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _cache_folder() -> Path:
    return home() / "kernels"
