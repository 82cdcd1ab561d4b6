"""docs/evaluation.md names what there is, and the commands of both pages exist."""

import re
import shlex

import pytest
from typer.testing import CliRunner

from rapid_integrations.cli.app import app
from rapid_integrations.evaluation.methods import METHODS, parse_method
from rapid_integrations.evaluation.predictions import Prediction
from rapid_integrations.evaluation.studies import STUDIES
from tests.toys.repository import ROOT

DOCS = ROOT / "docs"
TEXT = (DOCS / "evaluation.md").read_text()
RESULTS = (DOCS / "results" / "README.md").read_text()
COMMANDS = re.findall(r"^    (rapid .*)$", re.sub(r"\\\n +", "", f"{TEXT}\n{RESULTS}"), re.M)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_exists_with_its_options(command):
    words = shlex.split(command)[1:]
    result = CliRunner().invoke(app, [*words[:2], "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert all(option in result.stdout for option in words if option.startswith("-"))


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
