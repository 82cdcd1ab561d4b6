"""Kernels in PyTorch's threads: the same numbers, and no threads of their own."""

import sys
from ctypes import byref

import pytest
import torch

from rapid_integrations.kernels.cpu import native_library, torchs_threads
from rapid_integrations.kernels.cpu.structs import act_struct
from rapid_integrations.kernels.cpu.torchs_threads import let_go_of_threads, on_torchs_threads, torchs_openmp

needs_kernels = pytest.mark.skipif(native_library() is None, reason="no compiler, or RAPID_NATIVE=0")


def gated(rows=64, columns=640):
    """Return what a kernel in several threads makes of fixed numbers."""
    x = torch.randn(rows, 2 * columns, generator=torch.Generator().manual_seed(1)).bfloat16()
    out = torch.empty(rows, columns, dtype=torch.bfloat16)
    native_library().rapid_gate(x.data_ptr(), rows, columns, byref(act_struct("silu")), 1, 0, 0.0, 4, out.data_ptr())
    return out


PROGRAM = """
from ctypes import byref
from pathlib import Path
import torch
from rapid_integrations.kernels.cpu import native_library
from rapid_integrations.kernels.cpu.structs import act_struct
from rapid_integrations.kernels.cpu.torchs_threads import on_torchs_threads

def threads_of_our_own():
    x, out = torch.ones(64, 1280, dtype=torch.bfloat16), torch.empty(64, 640, dtype=torch.bfloat16)
    native_library().rapid_gate(x.data_ptr(), 64, 640, byref(act_struct("silu")), 1, 0, 0.0, 2, out.data_ptr())
    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    return names.count("rapid-kernels")

native_library()
torch.set_num_threads(2)
with on_torchs_threads():
    inside = threads_of_our_own()
print(inside, threads_of_our_own())
"""


@needs_kernels
def test_numbers_are_the_same_there():
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            wanted = gated()
            with on_torchs_threads():
                assert torch.equal(gated(), wanted)
                torch.mm(torch.ones(300, 300), torch.ones(300, 300))  # of PyTorch, between two of ours
                assert torch.equal(gated(), wanted)
            assert torch.equal(gated(), wanted)
    finally:
        torch.set_num_threads(before)


@needs_kernels
@pytest.mark.skipif(torchs_openmp() is None, reason="PyTorch does not compute with GNU OpenMP here")
def test_no_thread_of_our_own_is_started_there(children):
    ran = children.run(PROGRAM)
    assert ran.stdout.split() == ["0", "1"], ran.stderr


@needs_kernels
def test_where_a_library_cannot_be_found_as_it_is_loaded_our_own_threads_do_the_work(monkeypatch):
    wanted = gated()
    monkeypatch.delattr(torchs_threads.os, "RTLD_NOLOAD", raising=False)  # as on Windows
    monkeypatch.setattr(torchs_threads, "_told", set())
    assert torchs_openmp() is None
    with on_torchs_threads():
        assert torch.equal(gated(), wanted)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_another_openmp_is_left_alone(monkeypatch):
    monkeypatch.setattr(torchs_threads.Path, "read_text", lambda *_: "7f00 r-xp 0 08:01 1 /usr/lib/libiomp5.so\n")
    assert torchs_openmp() is None


LETS_GO = """
import threading, time
from pathlib import Path
import torch
from rapid_integrations.kernels.cpu.torchs_threads import let_go_of_threads

def threads():
    return len(list(Path("/proc/self/task").iterdir()))

def program():
    torch.set_num_threads(3)
    numbers = torch.rand(700, 700)
    before, product = threads(), numbers @ numbers
    held = threads()
    let_go_of_threads()
    let_go_of_threads()
    end = time.monotonic() + 20
    while (left := threads()) > before and time.monotonic() < end:  # nobody waits for them to end
        time.sleep(0.01)
    assert torch.equal(numbers @ numbers, product)
    print(held - before, left - before, threads() - before)

thread = threading.Thread(target=program)  # that of a forked process has no pool
thread.start()
thread.join()
"""

FORKS = """
import os, signal
import torch
from rapid_integrations.kernels.cpu.torchs_threads import let_go_of_threads

torch.set_num_threads(3)
numbers = torch.rand(700, 700)
numbers @ numbers
if (child := os.fork()) == 0:
    signal.alarm(20)  # ends a child that waits for ever
    let_go_of_threads()
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.process
@pytest.mark.skipif(torchs_openmp() is None, reason="PyTorch does not compute with GNU OpenMP here")
def test_a_thread_lets_go_of_its_pool_and_gets_another_one(children):
    ran = children.run(LETS_GO)
    assert ran.stdout.split() == ["2", "0", "2"], ran.stderr


@pytest.mark.process
@pytest.mark.skipif(torchs_openmp() is None, reason="PyTorch does not compute with GNU OpenMP here")
def test_a_forked_child_does_not_wait_for_the_pool_that_it_lacks(children):
    ran = children.run(FORKS)
    assert ran.stdout.split() == ["7"], ran.stderr


def test_without_gnu_openmp_nothing_is_let_go(monkeypatch):
    monkeypatch.setattr(torchs_threads, "_pause", lambda: None)
    let_go_of_threads()
