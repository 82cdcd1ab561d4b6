"""The README's commands and code are those of the package."""

import re

import pytest

from tests.toys.repository import ROOT

README = (ROOT / "README.md").read_text()


def test_the_first_two_commands_are_targets_of_the_makefile():
    first = re.search(r"```\n(make \w+)\n(make \w+)\n```", README)
    assert first and first.groups() == ("make demo", "make test")
    assert {"demo", "test", "setup", "lint", "test-slow"} <= set(
        re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    )
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_every_file_that_the_table_names_is_there():
    for name in re.findall(r"`([\w/]+(?:\.py|/))`", README.split("## How a request flows")[1].split("## The law")[0]):
        assert (ROOT / "rapid_integrations" / name).exists(), name


@pytest.mark.slow
def test_the_python_example_runs(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    exec(compile(re.search(r"```python\n(.*?)```", README, re.S)[1], "README.md", "exec"), {})
    assert "12 years" in capsys.readouterr().out
