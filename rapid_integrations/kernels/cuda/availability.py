"""Whether the kernels for GPUs can run in this process."""

from __future__ import annotations

import importlib.util
import os
from functools import cache

import torch

from rapid_integrations.cache.out_of_memory import is_out_of_memory

SWITCH = "RAPID_CUDA"
INTERPRET = "interpret"
"""The value of `SWITCH` with which Triton's interpreter runs the kernels on a processor, for tests.

Triton itself wants TRITON_INTERPRET=1 for that, before it is imported.
"""

LEAST_CAPABILITY = (8, 0)  # bfloat16 products; also the least that the kernels are compiled for in the tests


def interpreted() -> bool:
    """Return whether the environment asks for Triton's interpreter."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def why_not_cuda(device: torch.device) -> str:
    """Return why a model on this device takes its steps on PyTorch's operators; empty if the kernels can serve it.

    RAPID_CUDA=0 does without the kernels.
    """
    asked = os.environ.get(SWITCH, "1")
    if asked == "0":
        return f"{SWITCH}=0 is set"
    on_processor = asked == INTERPRET and interpreted() and device.type == "cpu"
    if device.type != "cuda" and not on_processor:
        return f"the kernels for GPUs do not serve {device}"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed: pip install 'rapid-integrations[cuda]'"
    if device.type == "cuda":
        if not torch.cuda.is_available():
            return "PyTorch finds no GPU"
        capability = torch.cuda.get_device_capability(device)
        if capability < LEAST_CAPABILITY:
            found, least = (".".join(map(str, each)) for each in (capability, LEAST_CAPABILITY))
            return f"the GPU has compute capability {found}, and the kernels need {least}"
        return _why_nothing_runs(torch.device("cuda", device.index or 0))
    return ""


@cache
def _why_nothing_runs(device: torch.device) -> str:
    """Return why no kernel can be compiled and launched on a GPU; empty if one was.

    Triton needs a C compiler and Python's headers when it first launches a kernel, and a driver that is new enough.
    """
    try:
        from rapid_integrations.kernels.cuda.gate import gate

        with torch.cuda.device(device):
            ones = torch.ones(1, 8, dtype=torch.float32, device=device)
            right = bool((gate(ones, "relu", gated=False) == 1).all())
    except Exception as error:
        if is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        return f"Triton cannot compile or launch kernels here: {reason}"
    return "" if right else "a kernel that Triton compiled computes something else here"
