"""The `rapid` command, run in a process of its own or in this one, on a tiny model in a folder."""

import errno
import json
import os
import re
import signal
import subprocess
import sys

import pytest

import rapid_integrations
from rapid_integrations.cli.app import app
from rapid_integrations.cli.console import INTERRUPTED, errors_taught
from rapid_integrations.cli.options import DocumentOptions
from tests.toys.command_line import CliRunner
from tests.toys.thinking import EMPTY


@pytest.fixture
def ask(folder, monkeypatch):
    monkeypatch.chdir(folder)

    def run(*arguments, text=None):
        models = ["--target", "./model", "--embedder", "./embedder", "--max-new-tokens", "8", "--dtype", "float32"]
        return CliRunner().invoke(app, ["ask", *models, *arguments], input=text)

    return run


def test_the_answer_goes_to_stdout_and_the_rest_to_stderr(ask):
    result = ask("document.md", "-q", "where is the cat?")
    assert result.exit_code == 0, result.output
    assert "What the drafter read" in result.stderr and "document.md" in result.stderr
    assert "Statistics" in result.stderr and "augmented (eta auto)" in result.stderr
    as_json = ask("document.md", "-q", "where is the cat?", "--json")
    answer = json.loads(as_json.stdout)
    assert result.stdout == answer["text"] + "\n"
    assert answer["usage"]["completion_tokens"] == len(answer["token_ids"]) > 0
    assert answer["finish_reason"] in ("eos", "length") and answer["retrieved"]
    assert answer["stats"]["segmentation"] == "explicit"


def test_options_reach_the_engine(ask):
    sampled = [
        json.loads(
            ask(
                "document.md",
                "-q",
                "where?",
                "--json",
                *("--law", "target", "--proposer", "prompt_lookup", "--draft-length", "3"),
                *("--temperature", "1.0", "--seed", seed, "--eta", "5"),
            ).stdout
        )
        for seed in ("1", "1", "2")
    ]
    assert sampled[0]["text"] == sampled[1]["text"] != sampled[2]["text"]
    assert sampled[0]["stats"]["law"] == "target" and sampled[0]["stats"]["proposer"] == "prompt_lookup"


def test_a_strength_is_a_number_or_auto(ask):
    result = ask("document.md", "-q", "where is the cat?", "--eta", "auto")
    assert result.exit_code == 0 and "augmented (eta auto)" in result.stderr
    assert json.loads(ask("document.md", "-q", "where?", "--json", "--eta", "2.5").stdout)["stats"]["eta"] == 2.5
    refused = ask("document.md", "-q", "where is the cat?", "--eta", "strong")
    said = " ".join(refused.stderr.split())
    assert refused.exit_code == 1 and "eta='strong'" in said and "'auto'" in said


def test_a_json_schema(ask):
    options = ("--json-schema", "schema.json", "--max-new-tokens", "200")
    result = ask("document.md", "-q", "is there a cat?", *options, "--json")
    answer = json.loads(result.stdout)
    assert answer["finish_reason"] == "length" or json.loads(answer["text"])["b"] in (True, False)
    assert re.match(r'\{\s*"b"\s*:\s*(true|false)', answer["text"])


def test_several_files_and_stdin(ask):
    result = ask("document.md", "-", "-q", "where is the cat?", "--json", text="the cat sat on the stand")
    assert result.exit_code == 0, result.output
    assert {chunk["context"] for chunk in json.loads(result.stdout)["retrieved"]} <= {0, 1}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("missing.md", "-q", "what?"), "missing.md cannot be read: No such file"),
        (("model", "-q", "what?"), "1 of 6 files cannot be read: model/model.safetensors is a binary file"),
        (("document.md", "missing.md", "-q", "what?"), "--skip-unreadable"),
        (("document.md", "-q", "what?", "--encoding", "latin-0"), "encoding='latin-0' is unknown"),
        (("document.md", "-q", "what?", "--trace", "nowhere/out.html"), "nowhere/out.html cannot be written"),
        (("empty.txt", "-q", "what?"), "empty.txt is empty"),
        (("document.md", "-q", " "), "the question is empty"),
        (("document.md", "-q", "what?", "--temperature", "-1"), "temperature=-1"),
        (("document.md", "-q", "what?", "--draft-length", "long"), "draft_length='long'"),
        (("document.md", "-q", "what?", "--proposer", "drafer"), "no proposer is called 'drafer'"),
        (("document.md", "-q", "what?", "--dtype", "float8"), "dtype='float8'"),
        (("document.md", "-q", "what?", "--device", "gpu"), "device='gpu'"),
        (("document.md", "-q", "what?", "--target", "./nowhere"), "nowhere does not exist"),
        (("document.md", "-q", "what?", "--target", "./latin.txt"), "latin.txt is not a model"),
        (("document.md", "-q", "what?", "--max-new-tokens", "9000"), "holds 8,192 tokens"),
        (("-", "-q", "what?"), "standard input is empty"),
        (("document.md", "-q", "what?", "--json-schema", "missing.json"), "missing.json cannot be read: No such file"),
        (("document.md", "-q", "what?", "--json-schema", "document.md"), "document.md is not JSON"),
        (("document.md", "-q", "what?", "--json-schema", "list.json"), "list.json holds a JSON list, not an object"),
        (("document.md", "-q", "what?", "--json-schema", "wrong.json"), "Invalid type: strin"),
    ],
)
def test_errors_are_one_sentence_and_no_traceback(ask, arguments, said):
    result = ask(*arguments)
    assert result.exit_code == 1
    assert said in " ".join(result.stderr.split()), result.stderr
    assert "Traceback" not in result.stderr and result.stdout == ""


@pytest.mark.parametrize("arguments", [("--tempratur", "1"), ("--law", "exact")])
def test_misspelt_options_are_refused(ask, arguments):
    result = ask("document.md", "-q", "what?", *arguments)
    assert result.exit_code == 2 and arguments[0] in result.stderr


def test_other_formats_and_folders(ask, folder):
    from tests.toys.document_files import docx, paragraph, pdf

    (folder / "mixed").mkdir()
    (folder / "mixed" / "one.pdf").write_bytes(pdf("the cat sat on a mat"))
    (folder / "mixed" / "two.docx").write_bytes(docx(paragraph("the dog ran far")))
    (folder / "mixed" / "x.doc").write_bytes(b"\xd0\xcf\x11\xe0")
    (folder / "mixed" / "y.png").write_bytes(b"\x89PNG")
    (folder / "mixed" / "größe.txt").write_bytes("die Größe".encode("cp1252"))
    assert ask("mixed", "-q", "where?").exit_code == 1
    result = ask("mixed", "-q", "where?", "--skip-unreadable", "--json", "--encoding", "cp1252")
    assert result.exit_code == 0, result.output
    assert [chunk["text"] for chunk in json.loads(result.stdout)["retrieved"]] == [
        "die Größe",
        "the cat sat on a mat",
        "the dog ran far",
    ]
    said = " ".join(result.stderr.split())
    assert "skipped: mixed/x.doc is an old or encrypted Office file" in said
    assert "skipped: mixed/y.png is a PNG picture" in said
    guessed = ask("mixed/größe.txt", "-q", "where?")
    assert "which is a guess" in " ".join(guessed.stderr.split())


def test_a_trace_is_written_beside_the_answer(ask, tmp_path):
    page = tmp_path / "out.html"
    plain = ask("document.md", "-q", "where is the cat?")
    result = ask("document.md", "-q", "where is the cat?", "--trace", str(page))
    assert result.exit_code == 0, result.output
    assert result.stdout == plain.stdout
    assert "where is the cat?" in page.read_text() and "document.md" in page.read_text()
    assert "trace: " in result.stderr


def test_a_document_cannot_steer_the_terminal(capsys, monkeypatch):
    from rapid_integrations.cli import console as command_line

    text = "a\x1b]0;title\x07\u202eb\n\tזה👩\u200d👧"
    command_line.write_answer(text)
    monkeypatch.setattr(command_line.sys.stdout, "isatty", lambda: True, raising=False)
    command_line.write_answer(text)
    assert capsys.readouterr().out == text + "a\ufffd]0;title\ufffd\ufffdb\n\tזה👩\u200d👧"


def test_models_list(monkeypatch, tmp_path):
    monkeypatch.setenv("RAPID_HOME", str(tmp_path))
    rows = json.loads(CliRunner().invoke(app, ["models", "list", "--json"]).stdout)
    names = ("smollm2-135m-instruct", "gemma-3-270m", "all-minilm-l6-v2")
    assert {row["name"]: row["pulled"] for row in rows} == dict.fromkeys(names, False)
    shown = CliRunner().invoke(app, ["models", "list"], env={"COLUMNS": "80"}).stdout.splitlines()
    assert any(line.startswith("smollm2-135m-instruct: SmolLM2 135M Instruct") for line in shown)
    assert len(shown) < 16 and max(map(len, shown)) <= 80
    result = CliRunner().invoke(app, ["models", "pull", "smollm3"])
    assert result.exit_code == 1 and "smollm2-135m-instruct" in result.stderr


@pytest.mark.process
def test_ctrl_c_in_mid_answer(folder):
    command = [sys.executable, "-m", "rapid_integrations", "ask", "document.md", "-q", "where is the cat?"]
    options = ["--target", "./model", "--embedder", "./embedder", "--max-new-tokens", "3000", "--dtype", "float32"]
    with subprocess.Popen(
        [*command, *options, "--law", "target", "--proposer", "none"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        assert process.stdout.read(1)  # the answer has begun
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=120)
    assert process.returncode == INTERRUPTED
    assert b"interrupted" in stderr and b"Traceback" not in stderr


def test_a_prefix_cache_folder_serves_the_next_run(ask, tmp_path):
    options = ["--json", "--prefix-cache-dir", str(tmp_path / "prefixes"), "--template-date", "2026-01-31"]
    first = json.loads(ask("document.md", "-q", "where is the cat?", *options).stdout)
    second = json.loads(ask("document.md", "-q", "why is it there?", *options).stdout)
    assert first["stats"]["cached_prompt_tokens"] == 0
    assert second["stats"]["cached_prompt_tokens"] > 0.9 * second["usage"]["prompt_tokens"]
    shown = ask("document.md", "-q", "why is it there?", *options[1:])
    assert "of them earlier" in shown.stderr


def test_remarks_about_many_files_are_few_lines(capsys, tmp_path):
    for number in range(40):
        (tmp_path / f"a{number}.txt").write_bytes("Café à la crème, déjà brûlé".encode("cp1252"))
        (tmp_path / f"b{number}.html").write_text("words" + "<iframe></iframe>" * (number + 1))
    documents = DocumentOptions().read([str(tmp_path)])
    said = "".join(capsys.readouterr().err.split())
    assert len(documents) == 80
    assert "a2.txtand37more:readascp1252" in said
    assert said.count("leftout") == 29 and said.endswith("11moreremarks:namefewerfilestoseethem")


# --- arguments of the chat template ----------------------------------------------------------------------------------

SWITCHED = ("document.md", "-q", "where?", "--target", "./switched", "--max-new-tokens", "4", "--json")
OFF = ("--template-argument", "enable_thinking=false")


def test_an_argument_of_the_template_reaches_the_prompt(ask):
    plain, off, on = (
        json.loads(ask(*SWITCHED, *given).stdout)
        for given in ((), OFF, (*OFF, "--template-argument", "enable_thinking=true"))
    )
    assert off["usage"]["prompt_tokens"] == plain["usage"]["prompt_tokens"] + len(EMPTY)
    assert off["token_ids"] != plain["token_ids"] == on["token_ids"]


@pytest.mark.parametrize(
    ("given", "status", "said"),
    [
        ("enable_thinking", 2, "is no NAME=VALUE"),
        ("=false", 2, "is no NAME=VALUE"),
        ("enable_thinking=False", 2, "is no JSON value: write true, false"),
        ("enable_thinking=high", 2, """'enable_thinking="high"'"""),
        ("documents=[]", 2, "cannot set 'documents'"),
        ("enable_thinkin=false", 1, "It reads enable_thinking. Did you mean 'enable_thinking'"),
    ],
)
def test_a_wrong_argument_of_the_template_is_refused(ask, given, status, said):
    result = ask(*SWITCHED, "--template-argument", given)
    shown = " ".join(result.stderr.replace("│", " ").split())
    assert result.exit_code == status and said in shown


def test_every_command_that_answers_takes_them(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(folder)
    models = ("--target", "./switched", "--embedder", "./embedder", "--dtype", "float32", "--template-argument", "x=1")
    rows = tmp_path / "mine.jsonl"
    rows.write_text(json.dumps({"file": str(folder / "other.txt"), "question": "what?", "answer": "cat"}))
    for command in (
        ("ask", "document.md", "-q", "where?"),
        ("chat", "document.md"),
        ("read", "document.md", "--prefix-cache-dir", str(tmp_path)),
        ("serve", "--port", "0"),
        ("eval", "run", str(tmp_path / "out"), "--task", f"own:{rows}"),
    ):
        result = CliRunner().invoke(app, [*command, *models])
        assert result.exit_code == 1 and "reads no such name" in " ".join(result.stderr.split()), command


def test_the_version_is_told():
    done = CliRunner().invoke(app, ["--version"])
    assert done.exit_code == 0 and done.stdout == f"rapid-integrations {rapid_integrations.__version__}\n"


def test_only_errors_of_standard_output_are_called_so():
    for error in (OSError(errno.ENOENT, "No such file or directory"), ConnectionResetError(errno.ECONNRESET, "reset")):
        with pytest.raises(OSError, match=error.strerror), errors_taught():
            raise error
