"""docs/robustness.md names the tests that show its claims: they must exist, and every hostile text is counted."""

import ast
import re
from functools import cache
from pathlib import Path

from tests.hostile.texts import KINDS

ROOT = Path(__file__).parents[1]
DOCS = (ROOT / "docs" / "robustness.md").read_text()
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", DOCS)


@cache
def names_in(file):
    tree = ast.parse((ROOT / file).read_text())
    return {
        node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
    }


def test_every_test_that_the_tables_name_exists():
    assert len(NAMED) > 100
    missing = [f"{file}::{name}" for file, name in NAMED if name not in names_in(file)]
    assert missing == []


def test_every_row_names_a_test():
    rows = [line for line in DOCS.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    headings = {line for line in rows if line.endswith("| test |")}
    assert len(headings) == 4  # the tables of what testers broke share one
    assert [row for row in rows if row not in headings and not re.search(r"`tests/[\w/]+\.py::\w+` \|$", row)] == []


def test_the_number_of_hostile_texts():
    assert f"Each of {len(KINDS)} texts" in DOCS and f"a megabyte of each of the {len(KINDS)}" in DOCS
