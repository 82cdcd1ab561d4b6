"""The file of predictions: what is there is found again, and nothing foreign is taken for it."""

import json

import pytest

from rapid_integrations.errors import ConfigurationError
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


@pytest.mark.parametrize("text", ["some notes\n", "some notes", "[1]\n", json.dumps({"run": {}}) + '\n{"task": "t"}\n'])
def test_something_else_is_no_prediction_file(tmp_path, text):
    path = tmp_path / "notes.txt"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match="holds no predictions"):
        PredictionFile(path, SETTINGS)
    assert path.read_text() == text
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_predictions(tmp_path / "missing.jsonl")
