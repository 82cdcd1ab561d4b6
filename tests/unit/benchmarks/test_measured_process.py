"""A process that measures: what it is told and says, and its end."""

import signal
import subprocess
import sys
import textwrap
import time

import psutil
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


@pytest.fixture
def parent(tmp_path):
    """Yield a process that measures, and the id of the measured one, which would run until both are killed."""
    noted = tmp_path / "pid"
    sleeps = f"""
        from rapid_integrations.benchmarks.measured_process import end_with_parent
        end_with_parent()
        with open({str(noted)!r} + ".new", "w") as file:
            file.write(str(os.getpid()))
        os.rename({str(noted)!r} + ".new", {str(noted)!r})
        time.sleep(600)
    """
    measured = [sys.executable, "-c", "import os, time\n" + textwrap.dedent(sleeps)]
    measures = textwrap.dedent(f"""
        import signal
        from pathlib import Path
        signal.signal(signal.SIGINT, signal.default_int_handler)
        from rapid_integrations.benchmarks.measured_process import run_measured
        from rapid_integrations.cli.interruption import ends_in_order
        with ends_in_order():
            run_measured({measured!r}, {{}}, Path({str(tmp_path)!r}))
    """)
    process = subprocess.Popen([sys.executable, "-c", measures], stderr=subprocess.DEVNULL)
    try:
        while not noted.exists():
            assert process.poll() is None
            time.sleep(0.02)
        yield process, psutil.Process(int(noted.read_text()))
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("sent", "status"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"]
)
def test_a_signal_to_the_one_that_measures_ends_both(parent, tmp_path, sent, status):
    measures, measured = parent
    measures.send_signal(sent)
    assert measures.wait() == status
    assert not measured.is_running()  # it is waited for before the other ends
    assert [path.name for path in tmp_path.iterdir()] == ["pid"]


def test_it_ends_even_if_the_one_that_measures_is_killed(parent):
    measures, measured = parent
    measures.kill()
    measures.wait()
    # Nobody is left who waits for it, so its end may be that of a zombie, whose new parent takes its time.
    while measured.is_running() and measured.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.02)
