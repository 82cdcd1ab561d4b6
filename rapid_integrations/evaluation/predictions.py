"""The file of a run's predictions, one JSON line each. A resumed run reads it again."""

from __future__ import annotations

import importlib
import json
import os
import sys
import weakref
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias
from zlib import crc32

from pydantic import BaseModel, ConfigDict

from rapid_integrations.errors import ConfigurationError
from rapid_integrations.outputs import DecodeStats, Usage

_FIRST = b'{"run": '

Key: TypeAlias = tuple[str, str, str]
"""The key of a prediction: task, item and method."""


class Prediction(BaseModel):
    """A method's answer to an item, its scores in [0, 1], and its statistics.

    `task` includes the documents' length if one was given ("facts@8192"), `method` its options
    ("rapid:eta=5"). `metric` names the score that tables show. `reasoning` is the first answer of an item with a
    follow-up. Usage and statistics are then those of that answer. `seconds` is wall time. `at_once` is the number of
    questions that were asked together, this one included: only if it is 1 are the times those of an answer alone.
    `asked` is `Item.digest`; it is empty in files of earlier versions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    item: str
    method: str
    document: str
    answer: str
    references: tuple[str, ...]
    metric: str
    scores: dict[str, float]
    groups: dict[str, str]
    finish_reason: str
    usage: Usage
    stats: DecodeStats
    seconds: float
    reasoning: str = ""
    at_once: int = 1
    asked: str = ""

    @property
    def key(self) -> Key:
        """The key of a prediction within a run."""
        return self.task, self.item, self.method

    @property
    def half(self) -> Literal["tune", "test"]:
        """The half of the questions that this one belongs to, "tune" or "test".

        Settings are chosen on one half and reported on the other. It depends only on task and item, so it is the same
        for all methods, models and runs.
        """
        return "test" if crc32(f"{self.task} {self.item}".encode()) % 2 else "tune"

    @property
    def score(self) -> float:
        """The score in tables."""
        return self.scores[self.metric]


class PredictionFile:
    """A file of predictions that belong to one set of settings.

    Its first line is {"run": settings}. If a killed process left an incomplete last line, it is dropped, and the
    prediction is made again. Another process cannot open the file while this object lives: the two would cut each
    other's last lines, and make every prediction twice. (Windows has no such lock.)

    Args:
        path: the file. It and its folder are created if they are missing.
        settings: everything that predictions depend on besides their key: models, sampling, seed.
        defaults: what a setting stood for before a file could name it. So a run that an older version began goes on.

    Raises:
        ConfigurationError: the file holds predictions of other settings or other content, is written by another
            process, or cannot be written.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], defaults: Mapping[str, Any] = {}) -> None:
        self.path = path
        settings = json.loads(json.dumps(settings))
        self.predictions: dict[Key, Prediction] = {}
        self._lines = _Lines.of(path)
        if _begun(path):
            found, predictions, whole = _read(path)
            found = _completed(found, json.loads(json.dumps(defaults)))
            if found != settings:
                changed = sorted(k for k in {*found, *settings} if found.get(k) != settings.get(k))
                told = "; ".join(f"{k}: {found.get(k)!r} there, {settings.get(k)!r} here" for k in changed)
                raise ConfigurationError(
                    f"{path} belongs to a run with other settings ({told}). Choose another folder, or run with the "
                    "settings it was begun with"
                )
            self.predictions = {prediction.key: prediction for prediction in predictions}
            os.truncate(path, whole)
        else:
            self._lines.append(json.dumps({"run": settings}))

    def add(self, prediction: Prediction) -> None:
        """Write a prediction and sync it to disk.

        Raises:
            ConfigurationError: it cannot be written. What was written before stays.
        """
        self._lines.append(prediction.model_dump_json())
        self.predictions[prediction.key] = prediction


class _Lines:
    """Appends lines to a file that is locked against other processes. A process has one for each file.

    Use `of`. The lock ends with the object.
    """

    _open: Final[weakref.WeakValueDictionary[tuple[int, int], _Lines]] = weakref.WeakValueDictionary()

    def __init__(self, path: Path, handle: int) -> None:
        self._path = path
        self._handle = handle
        weakref.finalize(self, os.close, handle)

    @classmethod
    def of(cls, path: Path) -> _Lines:
        """Return the lines of a file. It and its folder are created if they are missing."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
            status = os.fstat(handle)
        except OSError as error:
            raise _not_written(path, error) from error
        key = status.st_dev, status.st_ino
        if (known := cls._open.get(key)) is not None:
            os.close(handle)
            return known
        lines = cls._open[key] = cls(path, handle)
        lines._lock()
        return lines

    def append(self, line: str) -> None:
        """Write a line and sync it to disk. If that fails, nothing of it is left."""
        data = line.encode() + b"\n"
        before = os.fstat(self._handle).st_size
        try:
            while data:
                data = data[os.write(self._handle, data) :]
            os.fsync(self._handle)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._handle, before)
            raise _not_written(self._path, error) from error

    def _lock(self) -> None:
        if sys.platform == "win32":
            return
        fcntl = importlib.import_module("fcntl")
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                f"another process is writing {self._path}: wait until it has ended, or choose another folder. "
                "`rapid eval report` shows several folders in one table"
            ) from None
        except OSError:  # a file system without locks
            return


def _not_written(path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"{path} cannot be written ({error.strerror or error}): make room, or choose another folder. What is there "
        "already is kept, and the same command goes on from it"
    )


def _completed(settings: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Return settings with the defaults of those that are missing, in settings of settings, too."""
    whole = {**defaults, **settings}
    for name, default in defaults.items():
        if isinstance(default, dict) and isinstance(whole[name], dict):
            whole[name] = _completed(whole[name], default)
    return whole


def _begun(path: Path) -> bool:
    """Whether a file has its first line. What a killed process has left of one is dropped."""
    if not path.exists() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        begin = file.read(len(_FIRST))
        if b"\n" in begin + file.readline() or begin != _FIRST[: len(begin)]:
            return True
    os.truncate(path, 0)
    return False


def read_predictions(path: Path) -> tuple[dict[str, Any], list[Prediction]]:
    """Return a file's settings and predictions.

    Raises:
        ConfigurationError: the file is missing or holds other content.
    """
    settings, predictions, _ = _read(path)
    return settings, predictions


def _read(path: Path) -> tuple[dict[str, Any], list[Prediction], int]:
    """Return settings, predictions, and how many bytes of the file are whole lines."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}. Give the folder of a run") from error
    whole = data.rfind(b"\n") + 1
    first, *lines = data[:whole].split(b"\n")[:-1] or [b""]
    try:
        settings = json.loads(first)["run"]
        predictions = [Prediction.model_validate_json(line) for line in lines]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{path} holds no predictions of `rapid eval`: {str(error).splitlines()[0]}. Choose another folder"
        ) from error
    return settings, predictions, whole
