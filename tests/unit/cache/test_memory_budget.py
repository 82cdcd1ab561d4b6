"""What the caches do on accelerators, on a machine that has none: stand-ins record what is asked of the device."""

import contextlib

import torch

from rapid_integrations.cache import KVCache, memory_budget
from rapid_integrations.cache.memory_budget import available_memory

CUDA, MPS = torch.device("cuda", 0), torch.device("mps")


class Rows:
    """Rows of a KV cache on a device that is not there."""

    nbytes = 16

    def __init__(self, device, log):
        self.device, self.log = device, log

    def cpu(self):
        self.log.append("copy")
        return "rows"


def test_rows_are_copied_on_a_stream_of_their_own_behind_the_pass_that_wrote_them(monkeypatch):
    log = []

    class Event:
        def record(self, stream):
            log.append(f"record on {stream}")

    class Stream:
        def __init__(self, device):
            self.name = f"own stream of {device}"

        def wait_event(self, event):
            assert isinstance(event, Event)
            log.append("wait")

    @contextlib.contextmanager
    def inside(stream):
        log.append(stream.name)
        yield
        log.append("leave")

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", inside)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"current of {device}")
    rows, cache = Rows(CUDA, log), KVCache(1, 8)
    cache._tail.put(0, rows, rows)
    cache.freeze()
    cache.freeze()
    assert log == ["record on current of cuda:0"]
    assert cache.fetched(rows) == "rows"
    assert log[1:] == ["own stream of cuda:0", "wait", "copy", "leave"]


def test_rows_on_another_device_are_copied():
    cache, log = KVCache(1, 8), []
    cache.freeze()
    assert cache.fetched(Rows(MPS, log)) == "rows" and log == ["copy"]
    rows = torch.zeros(2)
    assert cache.fetched(rows) is rows


def test_what_torch_holds_without_using_it_counts_as_available(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 8000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 600)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 200)
    assert available_memory(CUDA) == 1400
    assert memory_budget.memory_budget("auto", [CUDA, torch.device("cpu")]) == 1400 * 3 // 8
    assert memory_budget.kv_budget("auto", [CUDA, torch.device("cpu")]) == 700


def test_a_gpu_keeps_a_long_document_beside_two_models(monkeypatch):
    """120,000 tokens of an 8B model take 15.06 GiB. It and an int4 drafter leave 53.6 GiB of 80 GB."""
    gib = 1 << 30
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(53.6 * gib), 80 * 10**9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 0)
    kept = memory_budget.memory_budget("auto", [CUDA])
    assert kept >= 15.06 * gib
    assert kept + memory_budget.kv_budget("auto", [CUDA]) < 0.9 * 53.6 * gib  # a pass needs memory, too
