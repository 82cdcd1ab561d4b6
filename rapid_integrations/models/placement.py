"""Chooses a model's device and the dtype that it computes in."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from rapid_integrations.errors import ConfigurationError
from rapid_integrations.kernels.cpu.library import multiplies_prompts, native_library

AMPERE = (8, 0)
"""The compute capability from which NVIDIA's GPUs have bfloat16 instructions."""


def device_of(device: str | torch.device) -> torch.device:
    """Return the device of a name; "auto" is CUDA if it is available, otherwise the CPU.

    Raises:
        ConfigurationError: this machine does not have the device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise ConfigurationError(
            f"device={device!r} is unknown: use 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'"
        ) from error
    there = torch.cuda.device_count() if wanted.type == "cuda" else 1
    if (wanted.index or 0) >= there:
        has = f"has {there} CUDA device{'s' if there > 1 else ''}" if there else "finds no CUDA device"
        raise ConfigurationError(f"device={str(wanted)!r}, but PyTorch {has} here: use 'auto' or 'cpu'")
    return wanted


def dtype_of(
    asked: str | torch.dtype, own: torch.dtype | None, device: torch.device, *, on_kernels: bool = False
) -> torch.dtype:
    """Return the dtype to compute in.

    "auto" is the model's own dtype if the device is fast at it. On a processor without bfloat16 instructions PyTorch
    emulates bfloat16 many times slower than float32, and only this package's kernels are fast at it. Nearly all
    processors emulate float16. NVIDIA GPUs before compute capability 8.0 (T4, V100) emulate bfloat16, so float16 takes
    its place there.

    Args:
        asked: "auto", a name or a dtype.
        own: the model's.
        device: to compute on.
        on_kernels: whether this package's kernels compute the model on a processor, if it is in bfloat16.
    """
    if asked != "auto":
        dtype = getattr(torch, asked, None) if isinstance(asked, str) else asked
        if dtype not in (torch.float32, torch.bfloat16, torch.float16):
            raise ConfigurationError(f"dtype={asked!r}: use 'auto', 'float32', 'bfloat16' or 'float16'")
        return dtype
    if device.type == "cpu":
        return torch.bfloat16 if pytorch_has_bfloat16() or (on_kernels and _kernels_multiply()) else torch.float32
    if not has_bfloat16(device):
        return torch.float16
    return own if own in (torch.bfloat16, torch.float16) else torch.bfloat16


def multiplied_in(x: Tensor) -> torch.dtype:
    """Return the dtype in which PyTorch multiplies what `x` stands for best: float32 if it emulates that of `x`."""
    emulated = x.dtype == torch.bfloat16 and x.device.type == "cpu" and not pytorch_has_bfloat16()
    return torch.float32 if emulated else x.dtype


@lru_cache(maxsize=1)
def pytorch_has_bfloat16() -> bool:
    """Return whether PyTorch multiplies bfloat16 on this processor without emulating it."""
    able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "sve_bf16", "arm_bf16"))


def depends_on_kernels(asked: str | torch.dtype, device: torch.device) -> bool:
    """Return whether `dtype_of` asks if the kernels compute the model."""
    return asked == "auto" and device.type == "cpu" and not pytorch_has_bfloat16() and _kernels_multiply()


def _kernels_multiply() -> bool:
    return native_library() is not None and multiplies_prompts()


def has_bfloat16(device: torch.device) -> bool:
    """Return whether a GPU computes in bfloat16 without emulating it."""
    return device.type != "cuda" or torch.version.hip is not None or capability(device) >= AMPERE


def capability(device: torch.device) -> tuple[int, int]:
    """Return the compute capability of a CUDA device."""
    return torch.cuda.get_device_capability(device)
