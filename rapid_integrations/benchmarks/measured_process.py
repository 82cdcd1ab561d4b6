"""Run a process that measures something, to its end or to this one's."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rapid_integrations.errors import ConfigurationError


def run_measured(child: Sequence[str], told: dict[str, Any], scratch: Path) -> dict[str, Any]:
    """Run a process and return the JSON object of its last line. If this process is interrupted, it is killed.

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
            process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr)
            try:
                status = process.wait()
            finally:
                process.kill()  # it has ended, unless this process is interrupted
                process.wait()
        lines = printed.read_text(errors="replace").strip().splitlines()
        if status != 0 or not lines:
            last = (errors.read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
            raise ConfigurationError(f"the measured process failed with exit status {status}: {last}")
    said: dict[str, Any] = json.loads(lines[-1])
    if "failed" in said:
        raise ConfigurationError(said["failed"])
    return said
