"""The pages name the tests that show their claims: those must exist."""

import ast
import re
from functools import cache

import pytest

from tests.docs.pages import DOCS, PAGES
from tests.hostile.texts import KINDS
from tests.toys.repository import ROOT

NAMED = [
    (path.name, *found)
    for path in PAGES
    for found in re.findall(r"`(tests/[\w/]+\.py)::(?:(\w+)::)?(\w+)", path.read_text())
]
ROBUSTNESS = (DOCS / "robustness.md").read_text()


@cache
def names_in(file):
    """Return the tests and classes of a file, those of a class as "Class::test" too."""
    names = set()
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}::{each.name}" for each in node.body if hasattr(each, "name")}
    return names


@pytest.mark.parametrize(("page", "least"), [("robustness.md", 100), ("langchain.md", 15), ("llama_index.md", 15)])
def test_the_tests_that_a_page_names_exist(page, least):
    named = [(file, f"{group}::{name}" if group else name) for where, file, group, name in NAMED if where == page]
    assert len(named) > least
    assert [f"{file}::{name}" for file, name in named if name not in names_in(file)] == []


def test_no_other_page_names_a_test_that_is_not_there():
    for _, file, group, name in NAMED:
        assert (f"{group}::{name}" if group else name) in names_in(file)


def test_every_test_file_that_a_page_names_is_there():
    for path in PAGES:
        for name in re.findall(r"`(tests/[\w/]+\.py)\b", path.read_text()):
            assert (ROOT / name).exists(), f"{path.name} names {name}"


def test_every_row_about_robustness_names_a_test():
    rows = [line for line in ROBUSTNESS.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    headings = {line for line in rows if line.endswith("| test |")}
    assert len(headings) == 4  # the tables of what testers broke share one
    assert [row for row in rows if row not in headings and not re.search(r"`tests/[\w/]+\.py::\w+` \|$", row)] == []


def test_the_number_of_hostile_texts():
    assert f"Each of {len(KINDS)} texts" in ROBUSTNESS and f"a megabyte of each of the {len(KINDS)}" in ROBUSTNESS
