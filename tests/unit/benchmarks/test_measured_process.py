"""A process that measures: what it is told and says, and its end."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from rapid_integrations.benchmarks.measured_process import run_measured
from rapid_integrations.errors import ConfigurationError

pytestmark = pytest.mark.process


def child(code):
    return [
        sys.executable,
        "-I",
        "-S",
        "-c",
        f"import json, os, sys, time\ntold = json.load(open(sys.argv[1]))\n{code}",
    ]


def test_the_last_line_is_what_it_says(tmp_path):
    says = 'threads, begun = os.environ["OMP_NUM_THREADS"], float(sys.argv[2]); print("log"); '
    says += 'print(json.dumps({"told": told, "threads": threads, "begun": begun}))'
    before = time.perf_counter()
    said = run_measured(child(says), {"threads": 3, "text": "x" * 500_000}, tmp_path)  # longer than an argument may be
    assert said["told"]["text"] == "x" * 500_000 and said["threads"] == "3"
    assert before <= said["begun"] <= time.perf_counter()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ('print(json.dumps({"failed": "pip install it"}))', "^pip install it$"),
        ("sys.exit('no such model')", "exit status 1: no such model"),
        ("os._exit(0)", "exit status 0: it said nothing"),
        ("os.kill(os.getpid(), 9)", "exit status -9: it said nothing"),
    ],
)
def test_why_it_failed(tmp_path, code, said):
    with pytest.raises(ConfigurationError, match=said):
        run_measured(child(code), {}, tmp_path)


def test_an_interrupt_ends_it_too(tmp_path):
    """Ctrl-C reaches the process that measures; the measured one writes its id and then would run for a minute."""
    noted = tmp_path / "pid"
    sleeps = f"open({str(noted)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    parent = textwrap.dedent(f"""
        import signal
        from pathlib import Path
        signal.signal(signal.SIGINT, signal.default_int_handler)
        from rapid_integrations.benchmarks.measured_process import run_measured
        run_measured({child(sleeps)!r}, {{}}, Path({str(tmp_path)!r}))
    """)
    process = subprocess.Popen([sys.executable, "-c", parent], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (noted.exists() and noted.read_text()):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) != 0
    with pytest.raises(ProcessLookupError):
        os.kill(int(noted.read_text()), 0)
    assert [path.name for path in tmp_path.iterdir()] == ["pid"]
