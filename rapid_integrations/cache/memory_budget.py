"""The default sizes of the prefix cache and of the running requests' caches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

import psutil
import torch

from rapid_integrations.errors import ConfigurationError

RUNNING_SHARE = 2  # "auto" for running requests is 1/2 of the available memory
AVAILABLE_SHARE = 4  # "auto" is 1/4 of the available memory, because running requests need the rest

GPU_EIGHTHS = 3
"""On a GPU "auto" is 3/8 of the free memory, as nothing else needs it. A quarter of what an 8B model and its int4
drafter leave of 80 GB would not hold one document of 120,000 tokens. Running requests take 1/2, and a pass the rest."""

_CGROUP = Path("/sys/fs/cgroup")


def memory_budget(asked: int | Literal["auto"], devices: Iterable[torch.device]) -> int:
    """Return the maximum size of the prefix cache, in bytes.

    Args:
        asked: bytes, or "auto" for 1/4 of the memory that is available now on the device that has the least. Of a
            GPU's memory it is 3/8.
        devices: the devices of the models.

    Raises:
        ConfigurationError: `asked` is neither "auto" nor a number of bytes.
    """
    rule = (
        f"prefix_cache_bytes={asked!r}: give a number of bytes, 0 for no prefix cache, "
        "or 'auto' for a quarter of the memory that is available"
    )
    return _budget(asked, devices, _kept, least=0, rule=rule)


def kv_budget(asked: int | Literal["auto"], devices: Iterable[torch.device]) -> int:
    """Return the bytes that the KV caches of running requests may have together.

    Args:
        asked: bytes, or "auto" for 1/2 of the memory that is available now on the device that has the least.
        devices: the devices of the models.

    Raises:
        ConfigurationError: `asked` is neither "auto" nor a number of bytes.
    """
    rule = f"kv_cache_bytes={asked!r}: give a number of bytes, or 'auto' for half of the memory that is available"
    return _budget(asked, devices, _running, least=1, rule=rule)


def _kept(device: torch.device) -> int:
    available = available_memory(device)
    return GPU_EIGHTHS * available // 8 if device.type == "cuda" else available // AVAILABLE_SHARE


def _running(device: torch.device) -> int:
    return available_memory(device) // RUNNING_SHARE


def _budget(
    asked: int | Literal["auto"],
    devices: Iterable[torch.device],
    part: Callable[[torch.device], int],
    *,
    least: int,
    rule: str,
) -> int:
    """Return `asked` if it is a number of bytes from `least` on, or the smallest `part` of a device's memory."""
    if asked == "auto":
        return min(map(part, devices))
    if not isinstance(asked, int) or isinstance(asked, bool) or asked < least:
        raise ConfigurationError(rule)
    return asked


def available_memory(device: torch.device) -> int:
    """Return the bytes that can still be allocated on `device`."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free + cached)
    available = int(psutil.virtual_memory().available)
    try:  # a container's limit may be lower than the machine's memory
        limit, used = ((_CGROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
        return available if limit == "max" else max(0, min(available, int(limit) - int(used)))
    except (OSError, ValueError):
        return available
