"""`rapid read`: documents are prefilled for the questions of later processes."""

import json
import re

import pytest

from rapid_integrations.cli.app import app
from tests.toys.command_line import CliRunner

MODELS = ("--target", "./model", "--embedder", "./embedder", "--dtype", "float32")


@pytest.fixture
def rapid(folder, monkeypatch):
    monkeypatch.chdir(folder)

    def run(command, *arguments):
        return CliRunner().invoke(app, [command, *arguments, *MODELS])

    return run


def test_a_later_question_finds_the_document_read(rapid, tmp_path):
    kept = ("--prefix-cache-dir", str(tmp_path))
    done = rapid("read", "document.md", *kept)
    assert done.exit_code == 0, done.output
    assert re.search(r"document.md: [\d,]+ tokens read, [\d,]+ MiB on disk", done.stderr) and not done.stdout
    asked = rapid("ask", "document.md", "-q", "where?", "--json", "--max-new-tokens", "2", *kept)
    stats = json.loads(asked.stdout)
    assert stats["stats"]["cached_prompt_tokens"] > 0.9 * stats["usage"]["prompt_tokens"]
    again = json.loads(rapid("read", "document.md", "--json", *kept).stdout)
    assert again["documents"] == ["document.md"] and again["cached_tokens"] == again["tokens"] and again["on_disk"]


def test_documents_are_read_for_one_prompt_or_each_for_itself(rapid, tmp_path):
    kept = ("--json", "--prefix-cache-dir", str(tmp_path))
    (both,) = map(json.loads, rapid("read", "document.md", "schema.json", *kept).stdout.splitlines())
    each = [
        json.loads(line) for line in rapid("read", "--each", "document.md", "schema.json", *kept).stdout.splitlines()
    ]
    assert both["documents"] == ["document.md", "schema.json"]
    assert [one["documents"] for one in each] == [["document.md"], ["schema.json"]]
    assert both["tokens"] > each[0]["tokens"] > each[1]["tokens"]


def test_a_folder_that_keeps_nothing_is_an_error(rapid, tmp_path):
    assert "nothing would keep what is read" in rapid("read", "document.md").stderr
    (tmp_path / "file").write_text("")
    refused = rapid("read", "document.md", "--prefix-cache-dir", str(tmp_path / "file"))
    assert refused.exit_code == 1 and "file is not a folder" in " ".join(refused.stderr.split())
    with pytest.warns(RuntimeWarning, match="cannot be"):
        failed = rapid("read", "document.md", "--prefix-cache-dir", str(tmp_path / "file" / "folder"))
    assert failed.exit_code == 1 and "not kept on disk" in failed.stderr


def test_a_document_that_was_read_is_found_with_another_argument_of_the_template(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(folder)
    models = ("--target", "./switched", *MODELS[2:], "--prefix-cache-dir", str(tmp_path), "--json")
    off = ("--template-argument", "enable_thinking=false")
    done = json.loads(CliRunner().invoke(app, ["read", "document.md", *models]).stdout)
    asked = CliRunner().invoke(app, ["ask", "document.md", "-q", "where?", "--max-new-tokens", "2", *models, *off])
    assert json.loads(asked.stdout)["stats"]["cached_prompt_tokens"] >= 0.9 * done["tokens"]
