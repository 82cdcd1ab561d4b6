"""Chooses a model's device and the dtype that it computes in."""

from __future__ import annotations

import torch

from rapid_integrations.errors import ConfigurationError

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


def dtype_of(asked: str | torch.dtype, own: torch.dtype | None, device: torch.device) -> torch.dtype:
    """Return the dtype to compute in.

    "auto" is the model's own dtype if the device is fast at it. A processor without bfloat16 instructions emulates
    bfloat16 many times slower than float32. Nearly all processors emulate float16. NVIDIA GPUs before compute
    capability 8.0 (T4, V100) emulate bfloat16, so float16 takes its place there.
    """
    if asked != "auto":
        dtype = getattr(torch, asked, None) if isinstance(asked, str) else asked
        if dtype not in (torch.float32, torch.bfloat16, torch.float16):
            raise ConfigurationError(f"dtype={asked!r}: use 'auto', 'float32', 'bfloat16' or 'float16'")
        return dtype
    if device.type == "cpu":
        able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        fast = able.get("avx512_bf16") or able.get("amx_bf16") or able.get("sve_bf16") or able.get("arm_bf16")
        return torch.bfloat16 if fast else torch.float32
    if not has_bfloat16(device):
        return torch.float16
    return own if own in (torch.bfloat16, torch.float16) else torch.bfloat16


def has_bfloat16(device: torch.device) -> bool:
    """Return whether a GPU computes in bfloat16 without emulating it."""
    return device.type != "cuda" or torch.version.hip is not None or capability(device) >= AMPERE


def capability(device: torch.device) -> tuple[int, int]:
    """Return the compute capability of a CUDA device."""
    return torch.cuda.get_device_capability(device)
