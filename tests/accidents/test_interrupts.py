"""Ctrl-C at any moment: one line, exit status 130, no traceback, nothing half-written that is taken for whole."""

import os
import signal
import subprocess
import sys
import time

import pytest

from rapid_integrations.__main__ import INTERRUPTED
from rapid_integrations.adapters import progress_view as terminal
from rapid_integrations.cli.app import app
from tests.toys.cli_folder import folder  # noqa: F401 (a fixture)
from tests.toys.command_line import CliRunner

ASK = ["ask", "document.md", "-q", "where is the cat?", "--target", "./model", "--embedder", "./embedder"]
OPTIONS = ["--dtype", "float32", "--max-new-tokens", "300", "--prefix-cache-dir", "./prefixes"]


def default_signals():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job has it ignored


def run(folder, code_or_module, *arguments, **options):  # noqa: F811
    return subprocess.Popen(
        [sys.executable, *code_or_module, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=default_signals,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        **options,
    )


def assert_interrupted(process, timeout=120):
    _, stderr = process.communicate(timeout=timeout)
    assert process.returncode == INTERRUPTED, stderr
    assert stderr.split() == ["interrupted"]


@pytest.mark.parametrize("stage", ["load models", "load embedder", "embed", "prefill target", "prefill drafter"])
def test_while(stage, folder, monkeypatch):  # noqa: F811
    """A real signal at the moment when the progress of a stage is shown."""
    shown = terminal.ProgressView.__call__

    def interrupting(self, at, done, total):
        shown(self, at, done, total)
        if at == stage:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.chdir(folder)
    monkeypatch.setattr(terminal.ProgressView, "__call__", interrupting)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        result = CliRunner().invoke(app, [*ASK, *OPTIONS])
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.exit_code == INTERRUPTED, result.output
    assert result.stderr.split() == ["interrupted"] and result.stdout == ""


WHILE_IMPORTING = """
import builtins, signal, sys
module, original = sys.argv.pop(1), builtins.__import__
def importing(name, *rest, **named):
    if name == module:
        builtins.__import__ = original
        signal.raise_signal(signal.SIGINT)
    return original(name, *rest, **named)
builtins.__import__ = importing
from rapid_integrations.__main__ import main
main()
"""


@pytest.mark.process
@pytest.mark.parametrize("module", ["typer", "rapid_integrations.engine.engine", "torch"])
def test_while_a_module_is_imported(module, folder):  # noqa: F811
    assert_interrupted(run(folder, ["-c", WHILE_IMPORTING], module, *ASK, *OPTIONS))


SWALLOWED = """
import signal, time, weakref
import rapid_integrations.__main__ as rapid
def app_for(arguments):
    module = type("Module", (), {})()
    reference = weakref.ref(module, lambda _: signal.raise_signal(signal.SIGINT))
    del module  # calls it, as importlib's locks are called when a module has been imported
    print("goes on", flush=True)
    time.sleep(600)
rapid.app_for = app_for
rapid.main()
"""


@pytest.mark.process
def test_where_python_swallows_it(folder):  # noqa: F811
    process = run(folder, ["-c", SWALLOWED])
    assert process.stdout.readline() == "goes on\n"
    assert_interrupted(process)


WAITING_AT_THE_END = """
import atexit, sys, time
import rapid_integrations.cli.app as cli
def app():
    raise KeyboardInterrupt
cli.app = app
atexit.register(lambda: (print("waits", flush=True), time.sleep(60)))
from rapid_integrations.__main__ import main
main()
"""


@pytest.mark.process
def test_twice_ends_a_program_that_waits_for_a_pass(folder):  # noqa: F811
    process = run(folder, ["-c", WAITING_AT_THE_END])
    assert process.stdout.readline() == "waits\n"
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT and stderr.split() == ["interrupted"]


def test_while_an_engine_answers_and_then_it_answers_again(folder):  # noqa: F811
    """In a program of one's own: KeyboardInterrupt comes through, and the engine can be used afterwards."""
    from rapid_integrations import Prompt, RapidEngine, SamplingParams

    document = (folder / "document.md").read_text()
    with RapidEngine.from_pretrained(folder / "model", embedder=folder / "embedder", dtype="float32") as engine:
        prompt = Prompt.from_context(document, "where is the cat?")
        expected = engine.generate(prompt, sampling=SamplingParams(max_new_tokens=8)).text
        for moment in (0.001, 0.02, 0.1, 0.5):
            before = signal.signal(signal.SIGALRM, signal.default_int_handler)
            try:
                with pytest.raises(KeyboardInterrupt):
                    signal.setitimer(signal.ITIMER_REAL, moment)
                    engine.generate(prompt, sampling=SamplingParams(max_new_tokens=3000))
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, before)
            assert engine.generate(prompt, sampling=SamplingParams(max_new_tokens=8)).text == expected


SAYS_THAT_IT_BEGINS = """
import rapid_integrations.__main__ as rapid
app_for = rapid.app_for
def begun(arguments):
    print("begun", flush=True)
    return app_for(arguments)
rapid.app_for = begun
rapid.main()
"""


@pytest.mark.process
@pytest.mark.slow
def test_at_twenty_moments(folder):  # noqa: F811
    def begun():
        """Start it, and wait for what it does first: Python itself, which ends in a traceback, takes its time."""
        process = run(folder, ["-c", SAYS_THAT_IT_BEGINS], *ASK, *OPTIONS)
        assert process.stdout.readline() == "begun\n"
        return process

    process = begun()
    begin = time.monotonic()
    process.communicate(timeout=300)
    assert process.returncode == 0
    whole = time.monotonic() - begin
    interrupted = 0
    for number in range(20):
        process = begun()
        time.sleep(whole * number / 20)
        if process.poll() is not None:
            whole /= 2  # the first one had less of the machine
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=300)
        # While the interpreter ends, behind the whole answer, the signal itself ends it: a shell reports 130 as well.
        ended = (0, INTERRUPTED, -signal.SIGINT)
        assert process.returncode in ended, f"after {number}/20: {process.returncode} {stderr}"
        assert "Traceback" not in stderr and "Exception ignored" not in stderr, f"after {number}/20: {stderr}"
        if process.returncode == INTERRUPTED:
            interrupted += 1
            assert stderr.split() == ["interrupted"], f"after {number}/20: {stderr}"
    assert interrupted >= 10
