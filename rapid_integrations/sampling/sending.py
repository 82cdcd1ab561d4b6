"""Numbers of the host on their way to a device."""

from __future__ import annotations

import torch
from torch import Tensor


def sent(values: Tensor, device: torch.device) -> Tensor:
    """Return a processor's tensor on a device, without waiting for what the device still has to do.

    A copy from ordinary memory to a GPU waits for everything before it. Pinned memory is kept until the copy is made.
    """
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)
