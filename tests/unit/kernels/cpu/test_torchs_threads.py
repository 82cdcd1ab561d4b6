"""Kernels in PyTorch's threads: the same numbers, and no threads of their own."""

import sys
from ctypes import byref

import pytest
import torch

from rapid_integrations.kernels.cpu import native_library, torchs_threads
from rapid_integrations.kernels.cpu.structs import act_struct
from rapid_integrations.kernels.cpu.torchs_threads import on_torchs_threads, torchs_openmp

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
