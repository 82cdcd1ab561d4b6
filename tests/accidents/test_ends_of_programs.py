"""A program that ends while something still computes or cannot be written ends as it would otherwise."""

import os
import subprocess
import sys

import pytest

from tests.toys.cli_folder import folder  # noqa: F811, F401 (a fixture)

pytestmark = pytest.mark.process
ASK = ["ask", "document.md", "-q", "where is the cat?", "--target", "./model", "--embedder", "./embedder"]
CANCELLED = """
import asyncio
import torch
from rapid_integrations.engine.async_stream import prepared_in_thread


class Engine:
    def require_open(self):
        pass


def search(on_progress):
    matrix = torch.randn(300, 300)
    while True:
        torch.linalg.svd(matrix)
        {look}


async def ask():
    task = asyncio.create_task(prepared_in_thread(Engine(), search, {{}}))
    await asyncio.sleep(0.3)
    {cancel}


asyncio.run(ask())
print("ended")
"""


@pytest.mark.parametrize("cancel", ["task.cancel()", "return  # asyncio.run cancels what is left"])
def test_a_search_that_nobody_waits_for_ends_before_the_program(cancel):
    code = CANCELLED.format(cancel=cancel, look='on_progress("embed", 0, 1)')
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", "")


def asked(folder, *more, **options):  # noqa: F811
    arguments = [sys.executable, "-m", "rapid_integrations", *ASK, "--max-new-tokens", "8", *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    environment |= options.pop("environment", {})
    return subprocess.run(arguments, cwd=folder, env=environment, stderr=subprocess.PIPE, timeout=300, **options)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
@pytest.mark.parametrize("more", [(), ("--json",)])
def test_an_answer_that_cannot_be_written(folder, more):  # noqa: F811
    with open("/dev/full", "wb") as full:
        done = asked(folder, *more, stdout=full)
    error = done.stderr.decode().split("error: ", 1)[1]
    assert done.returncode == 1 and "standard output cannot be written" in error and "Traceback" not in error


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_an_answer_that_the_encoding_of_a_pipe_does_not_have(folder, more):  # noqa: F811
    text = (folder / "document.md").read_text("utf-8")
    (folder / "document.md").write_text("\N{GRINNING FACE} \u4e2d " * 40 + text, "utf-8")
    done = asked(folder, *more, stdout=subprocess.PIPE, environment={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0 and done.stdout.isascii() and b"Traceback" not in done.stderr
