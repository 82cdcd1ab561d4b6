"""Who computes the distributions of a request."""

from __future__ import annotations

import torch

from rapid_integrations.kernels.cpu.library import loaded_library
from rapid_integrations.kernels.cpu.numpy_ops import NumPyOps
from rapid_integrations.kernels.cpu.ops import NativeOps
from rapid_integrations.kernels.cuda import why_not_cuda
from rapid_integrations.sampling import Ops, TorchOps
from rapid_integrations.sampling.rows import TorchRows


def ops_for(*devices: torch.device) -> Ops:
    """Return what computes on these devices, for a whole request; compiles nothing.

    The kernels serve if every device is a processor and this process has loaded them, as models do that they serve.
    NumPy and torch take their place on a processor without them. On a GPU Triton's kernels serve, if they can be had,
    and torch alone does otherwise, as on any other device. On GPUs alone, whole rounds are decided there.

    Args:
        devices: of the request's models, each once or more often.
    """
    if not any(why_not_cuda(device) for device in devices):
        from rapid_integrations.kernels.cuda.ops import TritonOps  # imports Triton

        return TritonOps()
    if any(device.type != "cpu" for device in devices):
        return TorchOps(TorchRows() if all(device.type == "cuda" for device in devices) else None)
    library = loaded_library()
    return NumPyOps() if library is None else NativeOps(library)
