"""Tensors in blocks of large pages: whole, apart from one another, and given back."""

import gc
import mmap
import multiprocessing
from pathlib import Path

import psutil
import pytest
import torch

from rapid_integrations.cache import arena as huge_pages
from rapid_integrations.cache.arena import Arena


def test_tensors_are_apart_and_aligned():
    arena = Arena()
    made = [
        arena.empty(shape, dtype)
        for shape, dtype in (((3, 5), torch.bfloat16), ((7,), torch.int8), ((2, 2), torch.float32))
    ]
    for number, tensor in enumerate(made):
        tensor.fill_(number)
    for number, tensor in enumerate(made):
        assert tensor.is_contiguous() and tensor.data_ptr() % 64 == 0 and (tensor == number).all()
    assert arena.empty((0, 4), torch.float32).shape == (0, 4)


def test_more_than_a_block(monkeypatch):
    monkeypatch.setattr(huge_pages, "_BLOCK", 4096)
    arena = Arena()
    source = torch.arange(3000, dtype=torch.float32)
    assert torch.equal(arena.copy(source), source)
    several = [arena.copy(source[:500]) for _ in range(5)]
    assert all(torch.equal(tensor, source[:500]) for tensor in several)


@pytest.mark.long
def test_blocks_are_given_back():
    process = psutil.Process()
    before = process.memory_info().rss
    arena = Arena()
    held = arena.empty((200 * 2**20,), torch.uint8)
    held.fill_(1)
    assert process.memory_info().rss - before > 150 * 2**20
    del held, arena
    gc.collect()
    assert process.memory_info().rss - before < 50 * 2**20


def test_where_the_system_has_none(monkeypatch):
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)
    assert Arena().copy(torch.ones(3)).sum() == 3


def test_what_cannot_be_had():
    with pytest.raises(MemoryError, match="bytes were requested"):
        Arena().empty((2**60,), torch.uint8)


def test_the_pages_are_large():
    switch = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not switch.exists() or "[never]" in switch.read_text():
        pytest.skip("this system has none")
    held = Arena().empty((64 * 2**20,), torch.uint8)
    held.fill_(1)
    sizes, inside = [], False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ", 1)[0]:
            start, end = (int(part, 16) for part in line.split(" ", 1)[0].split("-"))
            inside = start <= held.data_ptr() + 32 * 2**20 < end
        elif inside and line.startswith("AnonHugePages"):
            sizes.append(int(line.split()[1]))
    assert sum(sizes) > 16 * 1024  # kB


def _write(tensor):
    tensor.fill_(2)


def test_a_forked_process_writes_into_its_own():
    held = Arena().copy(torch.ones(1000))
    child = multiprocessing.get_context("fork").Process(target=_write, args=(held,))
    child.start()
    child.join()
    assert child.exitcode == 0 and (held == 1).all()
