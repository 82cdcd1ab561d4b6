"""docs/evaluation.md names what there is."""

import gzip
import re

import pytest

from rapid_integrations.evaluation.methods import METHODS, parse_method
from rapid_integrations.evaluation.predictions import Prediction, read_predictions
from rapid_integrations.evaluation.studies import STUDIES
from tests.toys.repository import ROOT

DOCS = ROOT / "docs"
TEXT = (DOCS / "evaluation.md").read_text()
RESULTS = (DOCS / "results" / "README.md").read_text()


def test_it_names_every_method_study_and_field():
    rows = {name for line in re.findall(r"^\| (`.*?) \|", TEXT, re.M) for name in re.findall(r"`([\w:.-]+)`", line)}
    assert METHODS.keys() | STUDIES.keys() <= rows
    assert Prediction.model_fields.keys() <= rows
    for method in re.findall(r"`(rapid:[^`]+)`", TEXT + RESULTS):
        parse_method(method)


def test_every_summary_of_the_results_has_its_predictions():
    summaries = {path.name.removesuffix(".json") for path in (DOCS / "results").glob("*.json")}
    assert summaries and summaries <= {p.name.removesuffix(".jsonl.gz") for p in (DOCS / "results").glob("*.jsonl.gz")}


@pytest.mark.parametrize("path", sorted((DOCS / "results").glob("*.jsonl.gz")), ids=lambda path: path.name)
def test_published_predictions_are_those_of_one_run(path, tmp_path):
    found = tmp_path / "predictions.jsonl"
    found.write_bytes(gzip.decompress(path.read_bytes()))
    _, predictions = read_predictions(found)
    assert len({prediction.key for prediction in predictions}) == len(predictions) > 100


def test_the_python_example_is_python():
    compile(re.search(r"```python\n(.*?)```", TEXT, re.S)[1], "docs/evaluation.md", "exec")
