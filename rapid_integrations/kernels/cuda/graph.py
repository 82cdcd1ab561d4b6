"""Repeating a step: as a CUDA graph, or on a processor by calling it again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

import torch

Step: TypeAlias = Callable[[], None]
"""Work that reads and writes static buffers, and does the same if it is done again."""


class Graph(Protocol):
    """A step that was captured."""

    def replay(self) -> None:
        """Do the step with what its buffers hold now."""
        ...


class EagerGraph:
    """Stands in for a CUDA graph on processors: a replay calls the step."""

    def __init__(self, step: Step, device: torch.device) -> None:
        self._step = step

    def replay(self) -> None:
        """Call the step."""
        self._step()


class CudaGraph:
    """A step as a CUDA graph; see `Graph`.

    Args:
        step: is called twice: the first call compiles kernels and lets libraries allocate their workspaces, the second
            one is recorded.
        device: of its buffers.
    """

    def __init__(self, step: Step, device: torch.device) -> None:
        self._device = device
        with torch.cuda.device(device):
            aside = torch.cuda.Stream(device)
            aside.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(aside):
                step()
            torch.cuda.current_stream(device).wait_stream(aside)
            self._graph = torch.cuda.CUDAGraph()
            # Other threads may allocate meanwhile: their calls are no part of the capture, and must not end it.
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                step()

    def replay(self) -> None:
        """Launch the graph on the current stream."""
        with torch.cuda.device(self._device):
            self._graph.replay()


def graph_of(step: Step, device: torch.device) -> Graph:
    """Return the kind of graph that a device can replay."""
    return CudaGraph(step, device) if device.type == "cuda" else EagerGraph(step, device)
