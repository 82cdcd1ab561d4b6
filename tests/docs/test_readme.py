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


# What the examples over the handbook print with the model of this package, by the page they stand on.
ANSWERS = {
    "README.md": ["EUR 1,400"],
    "docs/sources.md": ["EUR 1,400", "Each employee has an annual training budget"],
    "docs/documents.md": ["EUR 1,400", "EUR 310"],
}


@pytest.mark.slow
@pytest.mark.parametrize("page", ANSWERS)
def test_the_examples_over_the_handbook_answer_rightly(page, monkeypatch, capsys):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.S)
    asking = [block for block in blocks if "annual training budget" in block]
    assert len(asking) == 1
    monkeypatch.chdir(ROOT)
    exec(compile(asking[0], page, "exec"), {})
    printed = capsys.readouterr().out
    handbook = " ".join((ROOT / "examples" / "handbook.md").read_text().split())
    for answer in ANSWERS[page]:
        assert answer in printed and answer in handbook
