"""Kernels in C++ for decoding on a processor, built with the package for several kinds of processors.

Where it was built without a compiler, on a GPU, for float32 models or with RAPID_NATIVE=0, PyTorch's operators do the
same work.
"""

from rapid_integrations.kernels.cpu.decoder import (
    COLUMNS,
    HEAD_DIMS,
    LATENT_COLUMNS,
    MAX_COLUMNS,
    MAX_EXPERTS,
    MAX_ROWS,
    ROTATED_COLUMNS,
    NativeDecoder,
    serves_latents,
)
from rapid_integrations.kernels.cpu.library import native_library, native_variant, why_not_native, without_kernels
from rapid_integrations.kernels.cpu.matrices import NativeMatrix
from rapid_integrations.kernels.cpu.native_layers import (
    NativeAdapter,
    NativeAlternation,
    NativeExperts,
    NativeIndexer,
    NativeInput,
    NativeInputs,
    NativeLatent,
    NativeLaurel,
    NativeLayer,
    NativeRecurrence,
    NativeStreams,
)

__all__ = [
    "COLUMNS",
    "HEAD_DIMS",
    "LATENT_COLUMNS",
    "MAX_COLUMNS",
    "MAX_EXPERTS",
    "MAX_ROWS",
    "ROTATED_COLUMNS",
    "NativeAdapter",
    "NativeAlternation",
    "NativeDecoder",
    "NativeExperts",
    "NativeIndexer",
    "NativeInput",
    "NativeInputs",
    "NativeLatent",
    "NativeLaurel",
    "NativeLayer",
    "NativeMatrix",
    "NativeRecurrence",
    "NativeStreams",
    "native_library",
    "native_variant",
    "serves_latents",
    "why_not_native",
    "without_kernels",
]
