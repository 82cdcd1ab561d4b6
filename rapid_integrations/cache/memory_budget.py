"""The default sizes of the prefix cache and of the running requests' caches."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import psutil
import torch

from rapid_integrations.errors import ConfigurationError

RUNNING_SHARE = 2  # "auto" for running requests is 1/2 of the available memory
AVAILABLE_SHARE = 4  # "auto" is 1/4 of the available memory, because running requests need the rest

_CGROUP = Path("/sys/fs/cgroup")


def memory_budget(asked: int | Literal["auto"], devices: Iterable[torch.device]) -> int:
    """Return the maximum size of the prefix cache, in bytes.

    Args:
        asked: bytes, or "auto" for 1/4 of the memory that is available now on the device that has the least.
        devices: the devices of the models.

    Raises:
        ConfigurationError: `asked` is neither "auto" nor a number of bytes.
    """
    rule = (
        f"prefix_cache_bytes={asked!r}: give a number of bytes, 0 for no prefix cache, "
        "or 'auto' for a quarter of the memory that is available"
    )
    return _budget(asked, devices, AVAILABLE_SHARE, least=0, rule=rule)


def kv_budget(asked: int | Literal["auto"], devices: Iterable[torch.device]) -> int:
    """Return the bytes that the KV caches of running requests may have together.

    Args:
        asked: bytes, or "auto" for 1/2 of the memory that is available now on the device that has the least.
        devices: the devices of the models.

    Raises:
        ConfigurationError: `asked` is neither "auto" nor a number of bytes.
    """
    rule = f"kv_cache_bytes={asked!r}: give a number of bytes, or 'auto' for half of the memory that is available"
    return _budget(asked, devices, RUNNING_SHARE, least=1, rule=rule)


def _budget(asked: int | Literal["auto"], devices: Iterable[torch.device], share: int, *, least: int, rule: str) -> int:
    """Return `asked` if it is a number of bytes from `least` on, or one part of `share` of what is available."""
    if asked == "auto":
        return min(available_memory(device) for device in devices) // share
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
