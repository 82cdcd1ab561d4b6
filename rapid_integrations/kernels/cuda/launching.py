"""What all launches of kernels have in common."""

from __future__ import annotations

from typing import Any, Final

import torch
import triton.language as tl
from torch import Tensor

OPTIONS: Final[dict[str, Any]] = {"enable_fp_fusion": True}
"""Said to Triton at each launch: a later version will take another default, which this one warns of."""

_NAMES = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16, torch.float32: tl.float32}


def dtype_of(tensor: Tensor) -> tl.dtype:
    """Return Triton's name of a tensor's dtype."""
    return _NAMES[tensor.dtype]
