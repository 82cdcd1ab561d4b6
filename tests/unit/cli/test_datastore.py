import json
import os

import pytest
from typer.testing import CliRunner

from rapid_integrations.cli.app import app

MODELS = ["--target", "./model", "--embedder", "./embedder", "--dtype", "float32"]


@pytest.fixture
def run(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return lambda *arguments: CliRunner().invoke(app, [*arguments, *MODELS])


def test_an_index_is_built_and_copied_from(run):
    built = run("datastore", "build", "document.md", "other.txt", "-o", "index")
    assert built.exit_code == 0, built.output
    assert built.stdout.startswith("index: ") and "2 documents" in built.stdout
    ask = ["ask", "other.txt", "-q", "where is the cat?", "--max-new-tokens", "8", "--json", "--law", "target"]
    plain = json.loads(run(*ask, "--proposer", "none").stdout)
    for proposer in ("datastore", "retrieval_tree", "tree_hybrid"):
        copied = json.loads(run(*ask, "--proposer", proposer, "--datastore", "index", "--draft-length", "4").stdout)
        assert copied["token_ids"] == plain["token_ids"] and copied["stats"]["proposer"] == proposer


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ask", "other.txt", "-q", "where?", "--proposer", "datastore"], "rapid datastore build"),
        (["ask", "other.txt", "-q", "where?", "--datastore", "other.txt"], "damaged, or is no datastore"),
        (["ask", "other.txt", "-q", "where?", "--datastore", "nowhere"], "cannot be read"),
        (["datastore", "build", "empty.txt", "-o", "index2"], ""),
        (["datastore", "build", "other.txt", "-o", os.sep.join(("nowhere", "index"))], "cannot be written"),
    ],
)
def test_what_is_wrong_is_said(run, arguments, message):
    result = run(*arguments)
    assert result.exit_code == 1 and message in " ".join(result.stderr.split())
