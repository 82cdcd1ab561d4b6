"""Processes that start together in a fresh clone compile the kernels once between them."""

import os
import sys

import pytest
from filelock import FileLock

from rapid_integrations.kernels.cpu import compiler

# A compiler that hands out what was compiled for this process, and notes that it was called. It begins when both
# processes have found that there is no library.
_COMPILER = """#!{python}
import pathlib, shutil, sys, time

folder = pathlib.Path({folder!r})
if sys.argv[1] == "--version":
    sys.exit(print("1.0"))
while len(list(folder.glob("began-*"))) < 2:
    time.sleep(0.01)
(folder / "calls").open("a").write("called\\n")
shutil.copy(folder / "compiled.so", sys.argv[sys.argv.index("-o") + 1])
"""
_TWO_PROCESSES = """
import os, pathlib, sys
from rapid_integrations.kernels.cpu import compiler

folder = pathlib.Path(sys.argv[1])
def compile_here():
    began = lambda stage, done, of: (folder / f"began-{os.getpid()}").touch()
    print(compiler.compiled(began)._name, flush=True)

if (other := os.fork()) == 0:
    compile_here()
    os._exit(0)
compile_here()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]))
"""
_KILLED = """
import os, pathlib, signal, sys
from rapid_integrations.kernels.cpu import compiler

with compiler._taking_turns(pathlib.Path(sys.argv[1])):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def slow_compiler(fresh_process):
    """The program that stands for a compiler; needs a command that a shell can run."""
    written = fresh_process / "c++"
    written.write_text(_COMPILER.format(python=sys.executable, folder=str(fresh_process)))
    written.chmod(0o755)
    return written


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_the_second_process_waits_for_the_library_of_the_first(slow_compiler, fresh_process, children):
    done = children.run(
        _TWO_PROCESSES, fresh_process, seconds=120, CXX=str(slow_compiler), RAPID_HOME=str(fresh_process / "home")
    )
    assert done.returncode == 0, done.stderr
    (kept,) = (fresh_process / "home" / "kernels").glob("*.so")
    assert done.stdout.split() == [str(kept), str(kept)]
    assert len(list(fresh_process.glob("began-*"))) == 2  # both have found none
    assert (fresh_process / "calls").read_text() == "called\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_a_process_that_was_killed_holds_nobody_up(tmp_path, children):
    done = children.run(_KILLED, tmp_path / "library")
    assert done.returncode == -9, done.stderr
    with FileLock(tmp_path / "library.lock", timeout=0):  # raises if it is still held
        pass


def test_one_that_takes_too_long_is_waited_for_no_longer(tmp_path, monkeypatch):
    monkeypatch.setattr(compiler, "_PATIENCE_SECONDS", 0)
    with compiler._taking_turns(tmp_path / "library"), compiler._taking_turns(tmp_path / "library"):
        pass  # as two processes: each opens the file for itself
