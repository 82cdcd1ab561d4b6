"""docs/benchmarks.md: its commands are those of the package, and all of them are in it."""

import re
import shlex

import pytest
from typer.testing import CliRunner

from rapid_integrations.benchmarks.decode import OWN_METHODS, PLAIN
from rapid_integrations.benchmarks.figures import METHOD_LABELS
from rapid_integrations.benchmarks.peers import PEERS
from rapid_integrations.cli.app import app
from rapid_integrations.cli.bench import bench_app
from tests.toys.repository import ROOT

TEXT = (ROOT / "docs" / "benchmarks.md").read_text()
COMMANDS = [line.strip().removeprefix("rapid ") for line in TEXT.splitlines() if line.startswith("    rapid ")]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_exists_with_its_options(command):
    words = shlex.split(command)
    result = CliRunner().invoke(app, [*words[:2], "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    for option in (word for word in words if word.startswith("--")):
        assert option in result.stdout


def test_every_benchmark_and_method_is_described():
    for command in bench_app.registered_commands:
        assert f"## {command.name}\n" in TEXT and f"`rapid bench {command.name}`" in TEXT
    rows = re.findall(r"^\| `(\w+)` \|", TEXT, re.M)
    assert rows == list(METHOD_LABELS) and set(rows) == {*PEERS, *OWN_METHODS, *PLAIN}
