"""Repeating a step: as a CUDA graph, or by calling it again."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeAlias

import torch

from rapid_integrations.cache.out_of_memory import is_out_of_memory

Step: TypeAlias = Callable[[], None]
"""Work that reads and writes static buffers, and does the same if it is done again."""

_ONE_CAPTURE = threading.Lock()  # PyTorch allows one at a time in a process
_STREAMS: dict[torch.device, Any] = {}


class Graph(Protocol):
    """A step that was captured."""

    def replay(self) -> None:
        """Do the step with what its buffers hold now."""
        ...


class EagerGraph:
    """Stands in for a CUDA graph on processors, and where a capture fails: a replay calls the step."""

    def __init__(self, step: Step, device: torch.device) -> None:
        self._step, self._device = step, device

    def replay(self) -> None:
        """Call the step."""
        place: AbstractContextManager[Any] = nullcontext()
        if self._device.type == "cuda":
            place = torch.cuda.device(self._device)
        with place:
            self._step()


class CudaGraph:
    """A step as a CUDA graph; see `Graph`.

    Args:
        step: is called once and recorded. It has been called before, aside: then nothing is compiled any more, and
            libraries have their workspaces.
        device: of its buffers, the current one.
    """

    def __init__(self, step: Step, device: torch.device) -> None:
        self._device = device
        self._graph = torch.cuda.CUDAGraph()
        # A stream of this device: PyTorch's own for captures is on the device of the process's first capture, and of a
        # step on another device it would record nothing. Other threads may allocate meanwhile: their calls are no part
        # of the capture, and must not end it.
        with torch.cuda.graph(self._graph, stream=_stream_of(device), capture_error_mode="thread_local"):
            step()

    def replay(self) -> None:
        """Launch the graph on the current stream."""
        with torch.cuda.device(self._device):
            self._graph.replay()


def graph_of(step: Step, device: torch.device) -> Graph:
    """Return the kind of graph that a device can replay.

    If a capture fails, the step itself is called from then on, launch by launch, and a warning says so.
    """
    if device.type != "cuda":
        return EagerGraph(step, device)
    with _ONE_CAPTURE, torch.cuda.device(device):
        _call_aside(step, device)
        before = torch.cuda.current_stream(device)
        try:
            return CudaGraph(step, device)
        except RuntimeError as error:
            torch.cuda.set_stream(before)  # PyTorch leaves the capture's stream behind if it ends badly
            if is_out_of_memory(error):
                raise
            reason = " ".join(str(error).split())[:200]
            warnings.warn(
                f"a decode step could not be captured as a CUDA graph on {device} ({reason}): its kernels are launched "
                "one by one, which is slower",
                RuntimeWarning,
                stacklevel=2,
            )
            return EagerGraph(step, device)


def _call_aside(step: Step, device: torch.device) -> None:
    """Call a step on the stream of captures: kernels are compiled, and libraries allocate their workspaces for it."""
    aside, current = _stream_of(device), torch.cuda.current_stream(device)
    aside.wait_stream(current)
    with torch.cuda.stream(aside):
        step()
    current.wait_stream(aside)


def _stream_of(device: torch.device) -> Any:
    """Return the stream of a device on which steps are captured: always the same, as each has workspaces of its own."""
    if device not in _STREAMS:
        _STREAMS[device] = torch.cuda.Stream(device)
    return _STREAMS[device]
