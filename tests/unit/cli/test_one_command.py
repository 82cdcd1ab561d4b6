"""`rapid ask` and the like: a process imports the modules of its command, and a warm one no library it can spare."""

import json
import os
import subprocess
import sys

import pytest

from rapid_integrations.__main__ import app_for
from rapid_integrations.cli.app import app
from rapid_integrations.cli.one_command import ALONE
from tests.toys.command_line import CliRunner

# Libraries, and parts of this package, that a question about a document that is on disk needs nothing of.
SPARED = (
    *("transformers", "accelerate", "sentence_transformers", "gguf", "faiss", "scipy", "sklearn", "pandas", "networkx"),
    *("sympy", "matplotlib", "openvino", "torch._dynamo", "torch._inductor"),
    *("rapid_integrations.cli.app", "rapid_integrations.cli.bench", "rapid_integrations.evaluation"),
    *("rapid_integrations.server", "rapid_integrations.proposers.heads", "rapid_integrations.documents.pdf_file"),
    *("rapid_integrations.models.packed.loading", "rapid_integrations.prompt.segmentation.segmenter"),
)
PROCESS = """
import json, sys
from rapid_integrations.__main__ import main
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
said = sorted(name for name in {spared!r} if name in sys.modules)
sys.stderr.write("\\n" + json.dumps(said))
"""


@pytest.mark.parametrize("name", ALONE)
def test_a_command_alone_is_the_command(name):
    alone, whole = (CliRunner().invoke(each, [name, "--help"]) for each in (app_for([name, "--help"]), app))
    assert alone.exit_code == 0 and alone.output == whole.output


@pytest.mark.parametrize("name", ALONE)
def test_a_command_alone_refuses_as_the_command(name):
    alone, whole = (CliRunner().invoke(each, [name, "--no-such-option"]) for each in (app_for([name]), app))
    assert alone.exit_code == 2 and alone.output == whole.output


@pytest.mark.parametrize("arguments", [[], ["--help"], ["bench", "ask"], ["models", "list"]])
def test_everything_else_is_the_whole_command_line(arguments):
    assert app_for(arguments) is app


@pytest.mark.process
def test_a_question_about_a_document_on_disk_imports_little(folder, tmp_path, children):
    models = ("--target", folder / "model", "--embedder", folder / "embedder", "--dtype", "float32")
    options = (*models, "--prefix-cache-dir", tmp_path)
    environment = {"RAPID_HOME": str(tmp_path / "home"), "RAPID_NATIVE": "0"}
    program, document = PROCESS.format(spared=SPARED), folder / "document.md"

    read = children.run(program, "read", document, *options, **environment)
    assert read.returncode == 0, read.stderr
    assert "transformers" in json.loads(read.stderr.splitlines()[-1])  # a model's first start

    asked = ("ask", document, "-q", "where?", "--json", "--max-new-tokens", "2")
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, (*asked, *options))],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    answer, imported = done.stdout, json.loads(done.stderr.splitlines()[-1])
    stats = json.loads(answer)
    assert stats["stats"]["cached_prompt_tokens"] > 0.9 * stats["usage"]["prompt_tokens"]
    assert stats["usage"]["drafter_prompt_tokens"] < stats["usage"]["prompt_tokens"]  # retrieval has run
    assert imported == []
