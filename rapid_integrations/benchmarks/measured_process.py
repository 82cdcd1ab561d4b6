"""Run a process that measures something, to its end or to this one's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rapid_integrations.errors import ConfigurationError


def run_measured(child: Sequence[str], told: dict[str, Any], scratch: Path) -> dict[str, Any]:
    """Run a process and return the JSON object of its last line. If this process is interrupted, it is killed.

    Its standard input is open for as long as this process lives: one that calls `end_with_parent` outlives this one not
    even if this one is killed.

    Args:
        child: its command. Two arguments are added: a JSON file with `told`, and the clock (`time.perf_counter`).
        told: what it is told. With "threads", libraries of the process take as many.
        scratch: a folder for the file and for what the process prints.

    Raises:
        ConfigurationError: it says that it "failed" and why, or ends otherwise; then the message has its last line.
    """
    environment = dict(os.environ)
    if "threads" in told:
        environment["OMP_NUM_THREADS"] = str(told["threads"])
    with tempfile.TemporaryDirectory(prefix="process-", dir=scratch) as folder:
        asked, printed, errors = (Path(folder, name) for name in ("asked.json", "printed", "errors"))
        asked.write_text(json.dumps(told))
        with printed.open("wb") as stdout, errors.open("wb") as stderr:
            command = [*child, str(asked), repr(time.perf_counter())]
            process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=stdout, stderr=stderr)
            assert process.stdin is not None
            try:
                status = process.wait()
            finally:
                process.kill()  # it has ended, unless this process is interrupted
                process.wait()
                process.stdin.close()
        lines = printed.read_text(errors="replace").strip().splitlines()
        if status != 0 or not lines:
            last = (errors.read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
            raise ConfigurationError(f"the measured process failed with exit status {status}: {last}")
    said: dict[str, Any] = json.loads(lines[-1])
    if "failed" in said:
        raise ConfigurationError(said["failed"])
    return said


def end_with_parent() -> None:
    """End this process when its standard input ends, as that of `run_measured` does with the process that called it."""

    def watch() -> None:
        # Not through sys.stdin, whose lock this thread would still hold when the interpreter ends.
        while os.read(stdin, 1):
            pass
        os._exit(1)

    stdin = sys.stdin.fileno()
    threading.Thread(target=watch, name="rapid-parent", daemon=True).start()
