"""The code of docs/documents.md and docs/trace.md runs, and the commands of a chat are described."""

import re

import pytest

from rapid_integrations import Prompt, read_document, read_documents
from tests.toys.repository import ROOT

PAGES = {name: (ROOT / "docs" / name).read_text() for name in ("documents.md", "trace.md")}
CODE = [(name, code) for name, page in PAGES.items() for code in re.findall(r"```python\n(.*?)```", page, re.S)]


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
