"""Measure the peak memory on the models' device."""

from __future__ import annotations

import ctypes
import gc
import threading
from contextlib import suppress
from pathlib import Path

import psutil
import torch

_CLEAR_REFS, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
_FORGET_PEAK = "5"  # the value for clear_refs (man 5 proc)
_SAMPLE_S = 0.002


class PeakMemory:
    """Measures the bytes in use now, and their peak since `reset`.

    On an accelerator it counts torch's tensors. On CPU it reads the process's resident set, whose peak Linux keeps. If
    Linux does not keep or forget the peak, samples every 2 ms replace it.

    Attributes:
        source: the source of the figures.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._process = psutil.Process()
        self._sampler: _Sampler | None = None
        if device.type == "cuda":
            self.source = "torch.cuda.max_memory_allocated"
        elif self._kernel_forgets():
            self.source = "VmHWM"
        else:
            self.source = "sampled resident set"
            self._sampler = _Sampler(self._process)

    def now(self) -> int:
        """Return the bytes in use after garbage collection."""
        gc.collect()
        if self._device.type == "cuda":
            return torch.cuda.memory_allocated(self._device)
        with suppress(OSError, AttributeError):  # only glibc has it, and needs it
            ctypes.CDLL(None).malloc_trim(0)
        return int(self._process.memory_info().rss)

    def reset(self) -> None:
        """Forget the peak so far."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        elif self._sampler is not None:
            self._sampler.peak = 0
        else:
            _CLEAR_REFS.write_text(_FORGET_PEAK)

    def peak(self) -> int:
        """Return the most bytes in use since `reset`."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        if self._sampler is not None:
            return max(self._sampler.peak, int(self._process.memory_info().rss))
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024

    def close(self) -> None:
        """End the sampling, if any."""
        if self._sampler is not None:
            self._sampler.stop()

    def _kernel_forgets(self) -> bool:
        try:
            _CLEAR_REFS.write_text(_FORGET_PEAK)
            return "VmHWM" in _STATUS.read_text()
        except OSError:
            return False


class _Sampler:
    """Samples the resident set in a thread of its own."""

    def __init__(self, process: psutil.Process) -> None:
        self.peak = 0
        self._process = process
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="peak-memory", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._ended.wait(_SAMPLE_S):
            self.peak = max(self.peak, int(self._process.memory_info().rss))
