"""Notices what would make the host wait for a GPU, on a processor."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

WAITING = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default, torch.ops.aten.equal.default}


class NoWaits(TorchDispatchMode):
    """Raises AssertionError inside if a number of a tensor is asked for."""

    def __torch_dispatch__(self, operator, types, arguments=(), options=None):
        assert operator not in WAITING, f"{operator} waits for the device"
        return operator(*arguments, **(options or {}))
