import json
import os

import pytest

from rapid_integrations.cli.app import app
from tests.toys.command_line import CliRunner

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


def test_answers_are_added_if_asked(run, folder):
    run("datastore", "build", "document.md", "-o", "grows")
    ask = ["ask", "other.txt", "-q", "where is the cat?", "--max-new-tokens", "12", "--json", "--law", "target"]
    ask += ["--proposer", "datastore", "--datastore", "grows", "--draft-length", "4"]
    first = json.loads(run(*ask).stdout)
    assert not (folder / "grows.answers").exists()
    counts = [json.loads(run(*ask, "--datastore-grows").stdout)["stats"]["accepted_tokens"] for _ in range(2)]
    assert (folder / "grows.answers").stat().st_size > 4 * len(first["token_ids"])
    assert counts[1] > counts[0] == first["stats"]["accepted_tokens"]  # the same answer is copied
    seeded = [*ask, "--datastore-grows", "--temperature", "1", "--seed", "3"]
    drawn = [json.loads(run(*seeded).stdout) for _ in range(2)]
    assert drawn[0]["token_ids"] == drawn[1]["token_ids"]
    assert drawn[0]["stats"]["drafted_tokens"] == drawn[1]["stats"]["drafted_tokens"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ask", "other.txt", "-q", "where?", "--proposer", "datastore"], "rapid datastore build"),
        (["ask", "other.txt", "-q", "where?", "--datastore", "other.txt"], "damaged, or is no datastore"),
        (["ask", "other.txt", "-q", "where?", "--datastore", "nowhere"], "cannot be read"),
        (["ask", "other.txt", "-q", "where?", "--datastore-grows"], "needs a datastore to grow"),
        (["datastore", "build", "empty.txt", "-o", "index2"], ""),
        (["datastore", "build", "other.txt", "-o", os.sep.join(("nowhere", "index"))], "cannot be written"),
    ],
)
def test_what_is_wrong_is_said(run, arguments, message):
    result = run(*arguments)
    assert result.exit_code == 1 and message in " ".join(result.stderr.split())
