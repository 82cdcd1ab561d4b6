"""docs/evaluation.md names what there is."""

import re

from rapid_integrations.evaluation.methods import METHODS, parse_method
from rapid_integrations.evaluation.predictions import Prediction
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


def test_the_python_example_is_python():
    compile(re.search(r"```python\n(.*?)```", TEXT, re.S)[1], "docs/evaluation.md", "exec")
