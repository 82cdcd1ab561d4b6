"""The most memory that was in use at once, on the device where the models run."""

from __future__ import annotations

import ctypes
import gc
import threading
from contextlib import suppress
from pathlib import Path

import psutil
import torch

_CLEAR_REFS, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
_FORGET_PEAK = "5"  # what clear_refs takes for it (man 5 proc)
_SAMPLE_S = 0.002


class PeakMemory:
    """Bytes in use now, and at most since `reset`.

    On an accelerator: of torch's tensors. Otherwise the process's resident set, whose peak Linux keeps itself; where
    it does not, or may not forget it, samples every 2 ms stand in for it.

    Attributes:
        source: where the figures come from.
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
        """Return the bytes in use, after what is garbage has been given back."""
        gc.collect()
        if self._device.type == "cuda":
            return torch.cuda.memory_allocated(self._device)
        with suppress(OSError, AttributeError):  # only glibc's allocator has it, and keeps freed memory without
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
        """End the sampling, where there is any."""
        if self._sampler is not None:
            self._sampler.stop()

    def _kernel_forgets(self) -> bool:
        try:
            _CLEAR_REFS.write_text(_FORGET_PEAK)
            return "VmHWM" in _STATUS.read_text()
        except OSError:
            return False


class _Sampler:
    """Reads the resident set again and again, in a thread of its own."""

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
