"""The file of predictions: what is there is found again, and nothing foreign is taken for it."""

import errno
import gc
import json
import os
import subprocess
import sys

import pytest

from rapid_integrations.errors import ConfigurationError
from rapid_integrations.evaluation import predictions as module
from rapid_integrations.evaluation.predictions import PredictionFile, read_predictions
from tests.unit.evaluation.predictions import prediction

SETTINGS = {"target": "m", "seed": 0, "methods": ("a",)}


def test_what_was_written_is_found_again(tmp_path):
    path = tmp_path / "run" / "predictions.jsonl"
    file = PredictionFile(path, SETTINGS)
    file.add(prediction(item="0", answer="line\nbreak\u2028and ü"))
    file.add(prediction(item="1"))
    again = PredictionFile(path, SETTINGS)
    assert again.predictions == file.predictions and list(again.predictions) == [("t", "0", "lc"), ("t", "1", "lc")]
    settings, predictions = read_predictions(path)
    assert settings == {**SETTINGS, "methods": ["a"]} and len(predictions) == 2
    assert len(path.read_text().strip().split("\n")) == 3


def test_a_line_that_was_cut_off_is_made_anew(tmp_path):
    path = tmp_path / "predictions.jsonl"
    file = PredictionFile(path, SETTINGS)
    file.add(prediction(item="0"))
    with path.open("a") as cut:
        cut.write('{"task": "t", "item": "1", "me')
    assert len(read_predictions(path)[1]) == 1
    file = PredictionFile(path, SETTINGS)
    file.add(prediction(item="1"))
    assert [p.item for p in read_predictions(path)[1]] == ["0", "1"]


@pytest.mark.parametrize("left", ["", "{", '{"run": ', '{"run": {"target": "m", "se'])
def test_a_first_line_that_was_cut_off_is_made_anew(tmp_path, left):
    path = tmp_path / "predictions.jsonl"
    path.write_text(left)
    PredictionFile(path, SETTINGS).add(prediction(item="0"))
    assert [p.item for p in read_predictions(path)[1]] == ["0"]


def test_other_settings_are_refused(tmp_path):
    path = tmp_path / "predictions.jsonl"
    PredictionFile(path, SETTINGS)
    with pytest.raises(ConfigurationError, match="seed: 0 there, 1 here"):
        PredictionFile(path, {**SETTINGS, "seed": 1})


def test_a_run_goes_on_with_a_version_that_has_further_settings(tmp_path):
    path = tmp_path / "predictions.jsonl"
    PredictionFile(path, {**SETTINGS, "compression": {"ratio": 0.2}}).add(prediction(item="0"))
    later, defaults = {"ratio": 0.2, "opening_tokens": 0}, {"compression": {"ratio": 0.1, "opening_tokens": 0}}
    file = PredictionFile(path, {**SETTINGS, "compression": later}, defaults)
    assert [each.item for each in file.predictions.values()] == ["0"]
    with pytest.raises(ConfigurationError, match="'opening_tokens': 128"):
        PredictionFile(path, {**SETTINGS, "compression": {**later, "opening_tokens": 128}}, defaults)
    with pytest.raises(ConfigurationError, match="'ratio': 0.1"):
        PredictionFile(path, {**SETTINGS, "compression": {**later, "ratio": 0.1}}, defaults)


@pytest.mark.parametrize("text", ["some notes\n", "some notes", "[1]\n", json.dumps({"run": {}}) + '\n{"task": "t"}\n'])
def test_something_else_is_no_prediction_file(tmp_path, text):
    path = tmp_path / "notes.txt"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match="holds no predictions"):
        PredictionFile(path, SETTINGS)
    assert path.read_text() == text
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_predictions(tmp_path / "missing.jsonl")


def test_a_line_that_cannot_be_written_whole_is_not_there(tmp_path, monkeypatch):
    path = tmp_path / "predictions.jsonl"
    file = PredictionFile(path, SETTINGS)
    file.add(prediction(item="0"))
    before, write = path.read_bytes(), os.write
    room = [40]

    def on_a_full_disk(handle, data):
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        room[0] -= (written := write(handle, data[: room[0]]))
        return written

    with monkeypatch.context() as full:
        full.setattr(module.os, "write", on_a_full_disk)
        with pytest.raises(ConfigurationError, match=r"predictions.jsonl cannot be written \(No space left"):
            file.add(prediction(item="1"))
    assert path.read_bytes() == before and ("t", "1", "lc") not in file.predictions
    file.add(prediction(item="1"))
    assert [p.item for p in read_predictions(path)[1]] == ["0", "1"]


@pytest.mark.parametrize("place", ["file/predictions.jsonl", "folder"])
def test_a_place_that_cannot_be_written(tmp_path, place):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigurationError, match="cannot be written"):
        PredictionFile(tmp_path / place, SETTINGS)


OTHER = """
import sys
from pathlib import Path
from rapid_integrations.errors import ConfigurationError
from rapid_integrations.evaluation.predictions import PredictionFile
try:
    PredictionFile(Path(sys.argv[1]), {"target": "m", "seed": 0, "methods": ["a"]})
except ConfigurationError as error:
    print(error)
"""


@pytest.mark.process
@pytest.mark.skipif(sys.platform == "win32", reason="it has no such lock")
def test_two_processes_do_not_write_one_file(tmp_path):
    path = tmp_path / "predictions.jsonl"
    file = PredictionFile(path, SETTINGS)
    with path.open("a") as cut:
        cut.write('{"task": "t", "ite')  # a line that is being written

    def said_elsewhere():
        command = [sys.executable, "-c", OTHER, str(path)]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout

    assert f"another process is writing {path}" in said_elsewhere()
    assert path.read_text().endswith('"ite')
    again = PredictionFile(path, SETTINGS)  # the same process may, as in a notebook whose cell runs twice
    del file
    gc.collect()
    assert "another process" in said_elsewhere()
    again.add(prediction(item="0"))
    del again
    gc.collect()
    assert said_elsewhere() == "" and [p.item for p in read_predictions(path)[1]] == ["0"]
