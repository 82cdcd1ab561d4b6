"""docs/benchmarks.md: all benchmarks and methods are in it."""

import re

from rapid_integrations.benchmarks.decode import OWN_METHODS, PLAIN
from rapid_integrations.benchmarks.figures import METHOD_LABELS
from rapid_integrations.benchmarks.peers import PEERS
from rapid_integrations.cli.bench import bench_app
from tests.toys.repository import ROOT

TEXT = (ROOT / "docs" / "benchmarks.md").read_text()


def test_every_benchmark_and_method_is_described():
    for command in bench_app.registered_commands:
        assert f"## {command.name}\n" in TEXT and f"`rapid bench {command.name}`" in TEXT
    rows = re.findall(r"^\| `(\w+)` \|", TEXT, re.M)
    assert rows == list(METHOD_LABELS) and set(rows) == {*PEERS, *OWN_METHODS, *PLAIN}
