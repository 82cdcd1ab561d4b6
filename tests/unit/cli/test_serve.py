"""`rapid serve` and `rapid keys` as commands."""

import json
import os
import re
import signal
import subprocess
import sys

import httpx
import pytest

from rapid_integrations.cli.app import app
from tests.toys.cli_folder import folder  # noqa: F401
from tests.toys.command_line import CliRunner
from tests.toys.repository import ROOT

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")


def run(*arguments):
    return CliRunner().invoke(app, [str(each) for each in arguments])


def test_keys_are_made_listed_and_removed(tmp_path):
    file = tmp_path / "keys"
    made = run("keys", "add", "ann", "--file", file)
    assert made.exit_code == 0 and made.stdout.strip() not in file.read_text()
    assert run("keys", "list", "--file", file).stdout == "ann\n"
    assert run("keys", "remove", "ann", "--file", file).exit_code == 0
    assert run("keys", "list", "--file", file).stdout == ""
    assert run("keys", "remove", "ann", "--file", file).exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "--api-keys"),
        (["--tls-key", "a.pem"], "belong together"),
        (["--host", "203.0.113.7", "--api-keys", "keys"], "cannot listen at 203.0.113.7"),
        (["--api-keys", "keys"], "the file of API keys cannot be read"),
        (["--files-dir", "file"], "file cannot keep the uploaded documents"),
        (["--tls-certificate", "missing", "--tls-key", "missing"], "cannot be used (No such file or directory)"),
        (["--tls-certificate", "file", "--tls-key", "file"], "give two PEM files"),
        (["--allowed-origin", "https://app.example/"], "is no origin"),
        (["--allowed-host", "https://app.example"], "is no name of a host"),
    ],
)
def test_what_cannot_work_is_said_before_models_are_loaded(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("no certificate")
    done = run("serve", "--port", 0, "--target", "no such model", *arguments)
    assert done.exit_code == 1 and said in " ".join(done.output.split())
    assert "no such model" not in done.output


@pytest.mark.process
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_it_serves_until_it_is_told_to_stop(folder, tmp_path):  # noqa: F811
    given = ["--target", folder / "model", "--embedder", folder / "embedder", "--model-name", "tiny"]
    given += ["--files-dir", tmp_path / "files", "--port", 0, "--max-new-tokens", 5]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]]), "COLUMNS": "300"}
    server = subprocess.Popen(
        [sys.executable, "-m", "rapid_integrations", "serve", *map(str, given)], stderr=subprocess.PIPE, env=environment
    )
    try:
        address = None
        for line in server.stderr:
            if found := re.search(rb"tiny at (http://127\.0\.0\.1:\d+)/v1", line):
                address = found[1].decode()
                break
        assert address is not None
        body = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}]}
        answer = httpx.post(f"{address}/v1/chat/completions", json=body, timeout=60)
        assert answer.json()["usage"]["completion_tokens"] <= 5
        assert json.loads(httpx.get(f"{address}/ready").text)["status"] == "ready"
        server.send_signal(signal.SIGTERM)
        rest = server.stderr.read().decode()
        assert server.wait(30) == 0
        assert "POST /v1/chat/completions 200" in rest and "Hello" not in rest
    finally:
        server.kill()
        server.wait()
        server.stderr.close()


@pytest.mark.parametrize("missing", ["starlette", "uvicorn", "python_multipart", "prometheus_client"])
def test_a_missing_extra_is_named(missing, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == missing or "rapid_integrations.server" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    done = run("serve", "--target", "no such model")
    assert done.exit_code == 1 and "pip install 'rapid-integrations[server]'" in " ".join(done.output.split())
