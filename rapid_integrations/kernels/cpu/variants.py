"""The libraries that a wheel brings, and which of them this processor can run.

CMakeLists.txt builds them. The names of what a processor can do are those of Linux and of PyTorch, without underscores.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import torch

from rapid_integrations.kernels.cpu.interface import FOLDER, SUFFIX

BUILT = FOLDER / "built"
_AVX2: Final = frozenset({"avx2", "fma", "f16c", "bmi1", "bmi2"})
_AVX512: Final = _AVX2 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
_SAME: Final = {"bmi": "bmi1", "fma3": "fma"}  # PyTorch's names, and Linux's

# What arm64 is asked for: the system's own answer to this process, where /proc is not mounted, too.
_AUXILIARY: Final = {"asimddp": (16, 20), "i8mm": (26, 13), "bf16": (26, 14)}  # AT_HWCAP or AT_HWCAP2, and a bit of it
_SYSTEM_CONTROLS: Final = {"asimddp": "FEAT_DotProd", "i8mm": "FEAT_I8MM", "bf16": "FEAT_BF16"}  # of macOS


@dataclass(frozen=True)
class Variant:
    """A library for the processors that have what it `needs`."""

    name: str
    needs: frozenset[str] = frozenset()

    @property
    def path(self) -> Path:
        """Where the wheel has it."""
        return BUILT / f"kernels-{self.name}{SUFFIX}"


# The best one first.
_VARIANTS: Final = {
    "x86_64": (
        Variant("avx512_bf16", _AVX512 | {"avx512bf16", "avx512vnni"}),
        Variant("avx512_vnni", _AVX512 | {"avx512vnni"}),
        Variant("avx2_vnni", _AVX2 | {"avxvnni"}),
        Variant("avx2", _AVX2),
    ),
    "arm64": (
        Variant("neon_bf16", frozenset({"asimddp", "i8mm", "bf16"})),
        Variant("neon_dot", frozenset({"asimddp"})),
        Variant("neon"),
    ),
}
_MACHINES: Final = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}


def variants() -> tuple[Variant, ...]:
    """Return the variants for machines of this kind, the best one first; none if there are no kernels for it."""
    return _VARIANTS.get(machine(), ())


def machine() -> str:
    """Return "x86_64", "arm64", or "" for a machine of another kind; systems have several names for each."""
    return _MACHINES.get(platform.machine().lower(), "")


@lru_cache(maxsize=1)
def processor_features() -> frozenset[str]:
    """Return what this processor and its system can do; empty if neither the system nor PyTorch says it."""
    words = processor_description("flags", "Features").replace(":", " ").split()
    if machine() == "arm64":
        words += _told_by_linux() if sys.platform == "linux" else _told_by_macos()
    if not words and hasattr(torch.cpu, "get_capabilities"):  # not in every version of PyTorch
        words = [name for name, there in torch.cpu.get_capabilities().items() if there is True]
    return frozenset(_SAME.get(word, word) for word in (word.replace("_", "") for word in words))


def _told_by_linux() -> list[str]:
    ask = ctypes.CDLL(None).getauxval
    ask.argtypes, ask.restype = (ctypes.c_ulong,), ctypes.c_ulong
    return [name for name, (kind, bit) in _AUXILIARY.items() if ask(kind) >> bit & 1]


def _told_by_macos() -> list[str]:
    if sys.platform != "darwin":
        return []
    ask = ctypes.CDLL(None).sysctlbyname

    def has(name: str) -> bool:
        value, size = ctypes.c_int32(0), ctypes.c_size_t(4)
        name = f"hw.optional.arm.{name}"
        unknown = ask(name.encode(), ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0))
        return not unknown and value.value != 0

    return [name for name, theirs in _SYSTEM_CONTROLS.items() if has(theirs)]


@lru_cache(maxsize=4)
def processor_description(*keys: str) -> str:
    """Return the first processor's lines with these keys, as Linux describes it; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return "\n".join(next((line for line in lines if line.startswith(key)), "") for key in keys)
