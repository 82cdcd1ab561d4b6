"""Comparable figures: medians with their spread, and a description of the machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles

import torch


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, quartiles, minimum and maximum, rounded to four significant digits."""
    low, _, high = quantiles(values, method="inclusive") if len(values) > 1 else [values[0]] * 3
    found = {"median": median(values), "min": min(values), "q1": low, "q3": high, "max": max(values)}
    return {name: float(f"{value:.4g}") for name, value in found.items()}


def describe_machine(device: torch.device) -> dict[str, str | int]:
    """Return a description of the machine and software that the figures depend on."""
    import psutil
    import transformers

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "device": f"{device.type}: {name}",
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "load_1min": f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown",
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }


def _processor() -> str:
    """Return the processor's name. Linux has it in a file; `platform` knows only the architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def repeated_ngrams(token_ids: Sequence[int], n: int = 4) -> float:
    """Return the share of n-grams that occurred before. Looping text flatters speculation."""
    grams = [tuple(token_ids[i : i + n]) for i in range(len(token_ids) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
