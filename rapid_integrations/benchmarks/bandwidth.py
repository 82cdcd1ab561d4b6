"""Measure memory bandwidth, the limit of a decode step, which mostly reads weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch

from rapid_integrations.cache.arena import Arena

_MIN_REPEATS, _MAX_REPEATS, _MIN_S = 5, 60, 0.3


def median_seconds(step: Callable[[], object], device: torch.device) -> float:
    """Return the median time of a step, after two warm-up steps."""
    times: list[float] = []
    for _ in range(2):
        step()
    while len(times) < _MIN_REPEATS or (sum(times) < _MIN_S and len(times) < _MAX_REPEATS):
        _catch_up(device)
        start = time.perf_counter()
        step()
        _catch_up(device)
        times.append(time.perf_counter() - start)
    return median(times)


def copy_bandwidth(device: torch.device) -> float:
    """Return bytes per second, read and written, of a copy that is far larger than any cache."""
    elements = 2**30 if device.type == "cuda" else 2**28
    # A GPU may compress zeros on their way, which no model's weights are.
    source = torch.empty(elements, dtype=torch.uint8, device=device).random_()
    copy = torch.empty_like(source)
    return 2 * elements / median_seconds(lambda: copy.copy_(source), device)


def read_bandwidth() -> float:
    """Return bytes per second that the processor reads from memory in large pages, with torch's number of threads."""
    numbers = Arena().empty((2**27,), torch.int32).fill_(1)
    return numbers.nbytes / median_seconds(numbers.max, torch.device("cpu"))


def _catch_up(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
