"""The file of a run's predictions, one JSON line each. A resumed run reads it again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias
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
    prediction is made again.

    Args:
        path: the file. It and its folder are created if they are missing.
        settings: everything that predictions depend on besides their key: models, sampling, seed.

    Raises:
        ConfigurationError: the file holds predictions of other settings, or other content.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        settings = json.loads(json.dumps(settings))
        path.parent.mkdir(parents=True, exist_ok=True)
        self.predictions: dict[Key, Prediction] = {}
        if _begun(path):
            found, predictions, whole = _read(path)
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
            self._append(json.dumps({"run": settings}, ensure_ascii=False))

    def add(self, prediction: Prediction) -> None:
        """Write a prediction and sync it to disk."""
        self._append(prediction.model_dump_json())
        self.predictions[prediction.key] = prediction

    def _append(self, line: str) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())


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
