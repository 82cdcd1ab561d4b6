"""Whether answers are right on the machine: what is marked gpu, each test function in a process of its own.

They run beside each other, and each result is written down when it is there. So a crash, a hang or a slow compilation
costs that function alone.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from benchmarks.gpu_stages import ROOT, STAGES, SWITCH, Say

TESTS = ("tests/gpu/test_cuda.py", "tests/laws/test_enumeration.py")
_MARK = "pytest.mark.gpu"
_AT_ONCE = 8
_LEAST_S = 5  # for a test; with less, none is begun
_SPARE_S = 10  # of the stage's limit


def functions() -> list[str]:
    """Return the test functions that are marked gpu, as pytest names them."""
    found = []
    for path in TESTS:
        tree = ast.parse((ROOT / path).read_text()).body
        whole = any(isinstance(each, ast.Assign) and _MARK in ast.unparse(each) for each in tree)
        for each in tree:
            if isinstance(each, ast.FunctionDef) and each.name.startswith("test_"):
                if whole or any(_MARK in ast.unparse(mark) for mark in each.decorator_list):
                    found.append(f"{path}::{each.name}")
    return found


def correctness(say: Say) -> None:
    """Run them all; what is over when the time is over is said, too."""
    deadline = time.monotonic() + STAGES["correctness"].seconds - _SPARE_S
    with ThreadPoolExecutor(max(1, min(_AT_ONCE, (os.cpu_count() or 1) // 2))) as pool:
        # The last ones are those of the kernels, which nothing but a GPU can show.
        running = {pool.submit(_tested, name, deadline): name for name in reversed(functions())}
        for done in as_completed(running):
            code, told, seconds = done.result()
            name, lines = running[done].rpartition("::")[2], told.strip().splitlines() or [""]
            say(test=name, exit=code, result=lines[-1][:200], test_seconds=round(seconds, 1))
            if code:
                say(test=name, tail=told[-3000:])


def _tested(name: str, deadline: float) -> tuple[int, str, float]:
    command = [sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir=.", "-p", "no:cacheprovider", "-q", "-rfE"]
    command += ["-s", "-m", "gpu", "--maxfail=5", "--tb=short", name]
    if importlib.util.find_spec("pytest_timeout") is not None:
        command.append("--timeout=60")
    began = time.monotonic()
    if deadline - began < _LEAST_S:
        return -1, "not begun: no time was left", 0.0
    code, told = run(command, deadline - began)
    return code, told, time.monotonic() - began


def run(command: Sequence[str], seconds: float) -> tuple[int, str]:
    """Run a command for so long at most; return its exit code and what it has printed.

    It belongs to the worker's session, and ends with it.
    """
    surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), *sys.path)))}
    surroundings.pop(SWITCH, None)
    surroundings["RAPID_NATIVE"] = "0"  # kernels for processors, whose compilation takes a minute and a half
    with tempfile.TemporaryFile("w+", errors="replace") as printed:
        process = subprocess.Popen(command, stdout=printed, stderr=subprocess.STDOUT, env=surroundings, cwd=ROOT)
        late = ""
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            late = f"\nkilled after {seconds:.0f} s"
        printed.seek(0)
        return process.returncode, printed.read() + late
