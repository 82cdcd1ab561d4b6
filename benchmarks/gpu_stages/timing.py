"""Clocks of a GPU and of its host."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch

from benchmarks.gpu_stages import DRY


def caught_up() -> None:
    """Wait until the GPU has done everything."""
    if not DRY:
        torch.cuda.synchronize()


def peak_gb() -> float:
    """Most memory that was allocated since the last call, in GB."""
    if DRY:
        return 0.0
    most = torch.cuda.max_memory_allocated() / 1e9
    torch.cuda.reset_peak_memory_stats()
    return most


def ms(step: Callable[[int], object], *, warm: int = 2, repeats: int = 12) -> float:
    """Median device milliseconds; `step(i)` may rotate its inputs, so that nothing is read from the L2 cache."""
    if DRY:
        return wall_ms(lambda: step(0), warm=0, repeats=1)
    times = []
    for i in range(warm + repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        step(i)
        end.record()
        end.synchronize()
        if i >= warm:
            times.append(begin.elapsed_time(end))
    return median(times)


def wall_ms(step: Callable[[], object], *, warm: int = 2, repeats: int = 8) -> float:
    """Median milliseconds on the host's clock, between two synchronisations: what the engine pays today."""
    times = []
    warm, repeats = (0, 1) if DRY else (warm, repeats)
    for i in range(warm + repeats):
        caught_up()
        begin = time.perf_counter()
        step()
        caught_up()
        if i >= warm:
            times.append(1e3 * (time.perf_counter() - begin))
    return median(times)


def launch_ms(step: Callable[[], object]) -> float:
    """Milliseconds in which the host enqueues a step that waits for nothing: the floor without CUDA graphs."""
    step()
    caught_up()
    if not DRY:
        torch.cuda._sleep(400_000_000)  # a fifth of a second or so, behind which the queue fills
    begin = time.perf_counter()
    step()
    taken = 1e3 * (time.perf_counter() - begin)
    caught_up()
    return taken


def first_and_steady_ms(step: Callable[[], object]) -> tuple[float, float]:
    """The very first call (plans, compilation), then the median."""
    caught_up()
    begin = time.perf_counter()
    step()
    caught_up()
    return 1e3 * (time.perf_counter() - begin), wall_ms(step, warm=1, repeats=4)


def kernels(step: Callable[[], object], top: int = 12) -> list[tuple[str, int, float]]:
    """Names, calls and device microseconds of the kernels that a step launches."""
    from torch.profiler import ProfilerActivity, profile

    step()
    caught_up()
    if DRY:
        return []
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        step()
        caught_up()
    rows = [(e.key[:90], e.count, round(e.self_device_time_total, 1)) for e in seen.key_averages()]
    return sorted(rows, key=lambda row: -row[2])[:top]
