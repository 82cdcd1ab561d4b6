"""The commands and the code of docs/documents.md and docs/trace.md are those of the package."""

import re
import shlex

import pytest
from typer.testing import CliRunner

from rapid_integrations import Prompt, read_document, read_documents
from rapid_integrations.cli.app import app
from tests.toys.repository import ROOT

PAGES = {name: (ROOT / "docs" / name).read_text() for name in ("documents.md", "trace.md")}
COMMANDS = [line.split("rapid ", 1)[1] for page in PAGES.values() for line in page.splitlines() if "bin/rapid" in line]
CODE = [(name, code) for name, page in PAGES.items() for code in re.findall(r"```python\n(.*?)```", page, re.S)]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_exists_with_its_options(command):
    words = shlex.split(command.split("<")[0])
    result = CliRunner().invoke(app, [words[0], "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    for option in (word for word in words if word.startswith("-") and len(word) > 1):
        assert option in result.stdout


def test_the_commands_of_a_chat_are_described():
    from rapid_integrations.cli.chat import _HELP

    for command in _HELP:
        assert f"`{command}`" in PAGES["documents.md"]


def test_reading_as_described(monkeypatch):
    monkeypatch.chdir(ROOT)
    scope = {}
    exec(compile(CODE[0][1], "documents.md", "exec"), scope)
    assert scope["handbook"] == read_document("examples/handbook.md")
    assert scope["documents"] == read_documents("examples")
    assert isinstance(scope["prompt"], Prompt) and len(scope["prompt"].context_spans) == len(scope["documents"])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), CODE[1:], ids=lambda value: value[:20])
def test_the_examples_run(name, code, monkeypatch, tmp_path, capsys):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, name, "exec"), {})
    out = capsys.readouterr().out
    assert "12 years" in out.replace("\n", " ") or "drafter" in out
    if name == "trace.md":
        assert "handbook.md" in (tmp_path / "out.html").read_text()
