"""The kernels' threads: as many as the processor runs for all callers together, and new ones in a forked child."""

import os
import threading
from pathlib import Path

import pytest
import torch

from rapid_integrations.kernels import cpu as native
from rapid_integrations.kernels.cpu import prefill
from rapid_integrations.kernels.layers import Rope
from tests.toys.forking import in_child

pytestmark = [
    pytest.mark.skipif(native.native_library() is None, reason="no compiler, or RAPID_NATIVE=0"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


@pytest.fixture
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def rotated():
    """What calls a kernel and nothing else: PyTorch's own threads do not survive a fork."""
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(301, 10, 64, generator=generator).bfloat16()
    cos, sin = torch.randn(2, 301, 32, generator=generator)
    return lambda: bytes(prefill.rotate(qkv, 6, 2, (None, None), Rope(0, 32), cos, sin).view(torch.uint8).numpy())


def worker_threads():
    names = []
    for task in Path("/proc/self/task").iterdir():
        try:
            names.append((task / "comm").read_text().strip())
        except OSError:  # it has ended meanwhile
            continue
    return names.count("rapid-kernels")


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no list of threads here")
def test_callers_share_the_threads(four_threads, rotated):
    expected, wrong = rotated(), []
    together = threading.Barrier(64)

    def call():
        together.wait()
        wrong.extend(1 for _ in range(20) if rotated() != expected)

    callers = [threading.Thread(target=call) for _ in range(64)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong
    assert 3 <= worker_threads() <= max(os.cpu_count(), 16)  # not 64 x 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_threads_of_its_own(four_threads, rotated):
    expected = rotated()
    assert in_child(lambda: rotated() == expected and worker_threads()) == "returned 3"


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_that_is_forked_while_others_compute(four_threads, rotated):
    expected, stop = rotated(), threading.Event()

    def compute():
        while not stop.is_set():
            rotated()

    callers = [threading.Thread(target=compute) for _ in range(3)]
    for caller in callers:
        caller.start()
    try:
        for _ in range(10):
            assert in_child(lambda: rotated() == expected) == "returned True"
    finally:
        stop.set()
        for caller in callers:
            caller.join()
