"""CUDA graphs on a CUDA that only notes what is asked of it, and what stands in for graphs elsewhere."""

import contextlib

import pytest
import torch

from rapid_integrations.kernels.cuda import graph as graph_module
from rapid_integrations.kernels.cuda.graph import CudaGraph, EagerGraph, graph_of

SECOND = torch.device("cuda", 1)


def test_a_replay_does_the_step_with_what_its_buffers_hold_now():
    given, result = torch.zeros(2), torch.zeros(2)
    graph = graph_of(lambda: result.copy_(2 * given), torch.device("cpu"))
    assert isinstance(graph, EagerGraph)
    assert (result == 0).all()
    for value in (1.0, 5.0):
        given.fill_(value)
        graph.replay()
        assert (result == 2 * value).all()


class Stream:
    def __init__(self, device):
        self.device = device

    def wait_stream(self, other):
        pass


@pytest.fixture
def cuda(monkeypatch):
    """Return the devices and streams that a step was called on: current ones, as PyTorch keeps them."""
    now = {"device": torch.device("cuda", 0), "stream": Stream(torch.device("cuda", 0)), "fails": None, "replays": 0}

    @contextlib.contextmanager
    def device(wanted):
        before, now["device"] = now["device"], wanted
        try:
            yield
        finally:
            now["device"] = before

    @contextlib.contextmanager
    def stream(wanted):
        before = now["device"], now["stream"]
        now["device"], now["stream"] = wanted.device, wanted
        try:
            yield
        finally:
            now["device"], now["stream"] = before

    class Capture:
        def __init__(self, made, stream, capture_error_mode):
            self.stream = stream

        def __enter__(self):
            now["device"], now["stream"] = self.stream.device, self.stream
            if now["fails"] is not None:
                raise now["fails"]

        def __exit__(self, *_):
            now["device"], now["stream"] = SECOND, Stream(SECOND)

    class Recorded:
        def replay(self):
            assert now["device"] == SECOND
            now["replays"] += 1

    monkeypatch.setattr(graph_module, "_STREAMS", {})
    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda wanted: Stream(wanted))
    monkeypatch.setattr(torch.cuda, "set_stream", lambda wanted: now.update(stream=wanted, device=wanted.device))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Recorded)
    monkeypatch.setattr(torch.cuda, "graph", Capture)
    return now


def test_a_step_is_captured_on_a_stream_of_its_own_device(cuda):
    """PyTorch's own stream for captures is the first device's: on it, a step of another one would record nothing."""
    called = []
    graph = graph_of(lambda: called.append((cuda["device"], cuda["stream"])), SECOND)
    assert isinstance(graph, CudaGraph)
    assert [device for device, _ in called] == [SECOND, SECOND]
    assert called[0][1] is called[1][1]  # where it was compiled it is captured, too: libraries have their memory there
    graph_of(lambda: called.append((cuda["device"], cuda["stream"])), SECOND)
    assert {id(stream) for _, stream in called} == {id(called[0][1])}
    graph.replay()
    assert cuda["replays"] == 1


def test_a_step_that_cannot_be_captured_is_called_and_it_is_said(cuda):
    called = []
    cuda["fails"] = RuntimeError("operation not permitted when stream is capturing")
    with pytest.warns(RuntimeWarning, match="not permitted when stream is capturing"):
        graph = graph_of(lambda: called.append(cuda["device"]), SECOND)
    assert isinstance(graph, EagerGraph) and len(called) == 1
    assert cuda["stream"] not in graph_module._STREAMS.values()  # the capture's stream is no longer the current one
    assert cuda["device"] == torch.device("cuda", 0)
    graph.replay()
    assert called[1:] == [SECOND]


def test_errors_of_the_step_itself_and_a_lack_of_memory_are_raised(cuda):
    def wrong():
        raise ValueError("a fault of ours")

    with pytest.raises(ValueError, match="of ours"):
        graph_of(wrong, SECOND)
    cuda["fails"] = torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(torch.OutOfMemoryError):
        graph_of(lambda: None, SECOND)
