"""A tiny model, an embedder, a document and questions in a folder, and the `rapid bench` command run in it."""

import json

import pytest

from rapid_integrations.cli.app import app
from tests.toys.command_line import CliRunner
from tests.toys.embedding_model import save_tiny_embedder
from tests.toys.models import byte_tokenizer, tiny_model, words


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    tokenizer = byte_tokenizer()
    for name, seed in (("model", 0), ("smaller", 1)):
        size = {"num_hidden_layers": 1} if name == "smaller" else {}
        tiny_model("llama", seed, max_position_embeddings=8192, **size).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    save_tiny_embedder(folder / "embedder")
    (folder / "document.md").write_text(words(1, 600))
    questions = ["where is the cat?", "what ran far?", "who sat on a mat?", "what can a dog find?"]
    (folder / "questions.jsonl").write_text("\n".join(json.dumps({"question": each}) for each in questions))
    return folder


@pytest.fixture
def bench(folder, monkeypatch):
    """Run `rapid bench`; `summary` is the JSON of its last line."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("RAPID_HOME", str(folder / "home"))
    models = ["--target", "./model", "--embedder", "./embedder", "--dtype", "float32"]
    asked = ["--document", "document.md", "--questions", "questions.jsonl"]

    def run(command, *arguments, questions=True):
        return CliRunner().invoke(
            app, ["bench", command, *models, *(asked if questions else ()), *arguments], env={"COLUMNS": "100"}
        )

    return run


def summary(result):
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1])
