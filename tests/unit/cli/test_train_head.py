import json

import pytest

from rapid_integrations.cli.app import app
from tests.toys.command_line import CliRunner

TARGET = ["--target", "./model", "--dtype", "float32"]
SMALL = [
    "--passages",
    "4",
    "--prompt-tokens",
    "16",
    "--answer-tokens",
    "4",
    "--draft-vocab-size",
    "64",
    "--epochs",
    "1",
]


@pytest.fixture
def run(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def test_a_head_is_trained_and_used(run):
    trained = run("train-head", "--texts", "document.md", "-o", "head", *SMALL, *TARGET)
    assert trained.exit_code == 0, trained.output
    assert trained.stdout == "head\n" and "epoch 1 of 1" in trained.stderr
    asked = [
        "ask",
        "other.txt",
        "-q",
        "where is the cat?",
        "--max-new-tokens",
        "8",
        "--json",
        "--law",
        "target",
        *TARGET,
    ]
    asked += ["--embedder", "./embedder"]
    plain = json.loads(run(*asked, "--proposer", "none").stdout)
    for proposer in ("draft_head", "draft_head_tree"):
        drafted = json.loads(run(*asked, "--proposer", proposer, "--draft-head", "head", "--draft-length", "2").stdout)
        assert drafted["token_ids"] == plain["token_ids"] and drafted["stats"]["draft_head"] == "head"
        assert drafted["stats"]["drafted_tokens"] > 0
    other = run("train-head", "--texts", "document.md", "-o", "head", *SMALL, "--seed", "1", *TARGET)
    assert other.exit_code == 1 and "with other settings" in other.stderr
