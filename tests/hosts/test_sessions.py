"""The tooling round the suites: one run in a folder of its own, the lists of what cannot pass, the verdict."""

import json
import subprocess
import sys
import tarfile
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.hosts import sources
from tests.hosts.expected import FOLDER, expected_failures
from tests.hosts.sources import SuiteNotFoundError, laid_out
from tests.hosts.suites import SUITES, suite_of
from tests.hosts.verdict import judge

SESSION = Path(__file__).with_name("session.py")
SUITE = """
import pytest
from llama_index.core.llms import MockLLM
from tests import shared_by_the_suite
from tests.toys import embedder  # ours lies behind the suite's


@pytest.mark.parametrize("text", ["a", "b"])
def test_echo(text):
    assert MockLLM().complete(text).text == text

def test_no_model():
    assert shared_by_the_suite.VALUE == 1

def test_the_mocks_own_class():
    assert MockLLM.__module__ == "llama_index.core.llms.mock"

def test_named_wrongly():
    assert MockLLM().complete("x").text == "x"

def test_that_is_broken():
    assert False
"""


def run(root, record, *options):
    done = subprocess.run(
        [sys.executable, SESSION, *options, root, record, "tests"], capture_output=True, text=True, check=False
    )
    assert record.exists(), done.stdout + done.stderr
    return json.loads(record.read_text())


@pytest.mark.slow  # two processes that import both hosts; only `make test-hosts` rests on them
@pytest.mark.process
def test_two_runs_of_a_suite_and_their_verdict(tmp_path):
    package = tmp_path / "suite" / "tests"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "shared_by_the_suite.py").write_text("VALUE = 1\n")
    (package / "test_it.py").write_text(SUITE)
    reasons = {f"tests/test_it.py::{name}": "why" for name in ("test_the_mocks_own_class", "test_named_wrongly")}
    expected = tmp_path / "expected.json"
    expected.write_text(json.dumps(reasons))
    before = run(tmp_path / "suite", tmp_path / "before.json")
    install = next(suite.install for suite in SUITES if suite.distribution == "llama-index-core")
    ours = run(tmp_path / "suite", tmp_path / "ours.json", "--install", " ".join(install), "--expected", str(expected))

    assert before["tests"]["tests/test_it.py::test_the_mocks_own_class"]["outcome"] == "passed"
    verdict = judge(before, ours, reasons)
    assert (verdict.passed, verdict.asked) == (3, 2)  # two echoes, and one without a model
    assert verdict.expected == {"why": 1}
    assert verdict.broken_anyway == ["tests/test_it.py::test_that_is_broken"]
    assert verdict.surprising == ["tests/test_it.py::test_named_wrongly"]
    assert not verdict.failed and not verdict.unknown and not verdict.clean


def outcome(kind, why="", requests=0):
    return {"outcome": kind, "why": why, "requests": requests}


def test_what_passes_with_the_fakes_alone_is_a_failure():
    before = {"tests": {"t::a": outcome("passed")}, "collect_errors": {}}
    ours = {"tests": {"t::a": outcome("failed", "AssertionError: no\nmore")}, "collect_errors": {"t/b.py": "x\ny"}}
    verdict = judge(before, ours, {"t::gone": "why"})
    assert verdict.failed == {"t::a": "AssertionError: no", "t/b.py": "y"}
    assert verdict.unknown == ["t::gone"] and not verdict.clean
    assert "FAILED t::a: AssertionError: no" in verdict.lines()


@pytest.mark.parametrize("distribution", [suite.distribution for suite in SUITES])
def test_each_expected_failure_has_a_reason_and_stands_once(distribution):
    reasons = expected_failures(distribution)
    assert reasons, "a list without tests"
    for test, reason in reasons.items():
        assert test.startswith("tests/") and ".py::" in test, test
        assert len(reason.split()) >= 4, f"{test}: {reason!r} is no reason"


def test_every_list_belongs_to_a_suite():
    assert {path.stem for path in FOLDER.glob("*.toml")} == {suite.distribution for suite in SUITES}


def test_a_checkout_is_taken_by_its_repository_or_its_part(tmp_path):
    suite = suite_of("llama-index-core")
    part = tmp_path / "checkout" / "llama-index-core"
    (part / "tests").mkdir(parents=True)
    (part / "tests" / "test_x.py").touch()
    (part / "llama_index").mkdir()
    (part / "pyproject.toml").write_text('[project]\nversion = "0.14.19"\n')
    for given in (tmp_path / "checkout", part):
        root = laid_out(suite, given, tmp_path / "cache")
        assert sorted(path.name for path in root.iterdir()) == ["pyproject.toml", "tests"]
        assert sources.version_of(root) == "0.14.19"


def test_missing_tests_are_said_with_the_way_to_get_them(tmp_path):
    suite = suite_of("llama-index-core")
    command = f"git clone --depth 1 --branch 'v{version('llama-index-core')}' https://github.com/run-llama/llama_index"
    for given in (None, tmp_path):
        with pytest.raises(SuiteNotFoundError) as error:
            laid_out(suite, given, tmp_path / "cache")
        assert command in str(error.value)


def test_of_a_source_distribution_only_the_tests_are_unpacked(tmp_path, monkeypatch):
    suite = replace(suite_of("langchain"), paths=("tests/unit_tests",))
    source = tmp_path / f"langchain-{version('langchain')}"
    (source / "tests" / "unit_tests").mkdir(parents=True)
    (source / "tests" / "unit_tests" / "test_x.py").write_text("x = 1\n")
    (source / "langchain").mkdir()
    (source / "pyproject.toml").write_text(f'[project]\nversion = "{version("langchain")}"\n')

    def download(command, *, check):
        assert command[2:4] == ["pip", "download"] and f"langchain=={version('langchain')}" in command
        into = Path(command[command.index("--dest") + 1])
        into.mkdir(parents=True)
        with tarfile.open(into / f"{source.name}.tar.gz", "w:gz") as tar:
            tar.add(source, source.name)

    monkeypatch.setattr(sources.subprocess, "run", download)
    root = laid_out(suite, None, tmp_path / "cache")
    assert sorted(path.name for path in root.iterdir()) == ["pyproject.toml", "tests"]
    monkeypatch.setattr(sources.subprocess, "run", None)  # the second time it is there
    assert laid_out(suite, None, tmp_path / "cache") == root
