"""Processes of their own that begin with torch and transformers imported: forks of one interpreter made for it.

Importing takes six seconds of a processor, which each of some twenty tests would spend otherwise. A child runs as a
program does, to the end of its interpreter; it may die of a signal, limit its memory or change its environment.
"""

import json
import os
import select
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.toys.repository import ROOT

_PROGRAM = """
import gc, json, os, sys
import tests.toys.models, rapid_integrations.engine.engine

gc.freeze()  # the end of a child looks through what is its own; all of it would be copied, and take a second
print("ready", flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if child == 0:
        for stream, name in enumerate((os.devnull, asked["stdout"], asked["stderr"])):
            os.dup2(os.open(name, os.O_RDWR | os.O_CREAT, 0o600), stream)
        sys.argv = asked["arguments"]
        os.environ.clear()
        os.environ.update(asked["environment"])
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    sys.exit()
exec(compile(asked["code"], "child", "exec"), {"__name__": "__main__"})
"""


class Children:
    """Runs programs one after the other, each in a fork of an interpreter that is started for the first."""

    def __init__(self):
        self._parent = None

    def run(self, code, *arguments, seconds=600, **environment):
        """Run `code` with `sys.argv[1:]` and variables of the environment; returns what `subprocess.run` does."""
        parent = self._started()
        with tempfile.TemporaryDirectory() as folder:
            stdout, stderr = Path(folder, "stdout"), Path(folder, "stderr")
            asked = {
                "code": code,
                "arguments": ["child", *map(str, arguments)],
                "environment": {**self._environment(), **environment},
                "stdout": str(stdout),
                "stderr": str(stderr),
            }
            parent.stdin.write(json.dumps(asked) + "\n")
            parent.stdin.flush()
            ready, _, _ = select.select([parent.stdout], [], [], seconds)
            if not ready:
                self.end()
                raise TimeoutError(f"a child took more than {seconds} s: {stderr.read_text()[-2000:]}")
            returncode = int(parent.stdout.readline())
            return subprocess.CompletedProcess(asked["arguments"], returncode, stdout.read_text(), stderr.read_text())

    def run_module(self, name, *arguments, **options):
        """Run a module as `python -m` does."""
        return self.run(f"import runpy; runpy.run_module({name!r}, run_name='__main__')", *arguments, **options)

    def end(self):
        """End the interpreter, and with it a child that still runs."""
        if self._parent is not None:
            os.killpg(self._parent.pid, 9)
            self._parent.communicate()
            self._parent = None

    def _started(self):
        if self._parent is None:
            self._parent = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
                env=self._environment(),
                start_new_session=True,
            )
            assert self._parent.stdout.readline() == "ready\n"
        return self._parent

    @staticmethod
    def _environment():
        return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
