"""What all launches of kernels have in common."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import torch
import triton.language as tl
from torch import Tensor

OPTIONS: Final[dict[str, Any]] = {"enable_fp_fusion": True}
"""Said to Triton at each launch: a later version will take another default, which this one warns of."""

_P = ParamSpec("_P")
_R = TypeVar("_R")

_NAMES = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16, torch.float32: tl.float32}


def dtype_of(tensor: Tensor) -> tl.dtype:
    """Return Triton's name of a tensor's dtype."""
    return _NAMES[tensor.dtype]


def where_it_lies(run: Callable[Concatenate[Tensor, _P], _R]) -> Callable[Concatenate[Tensor, _P], _R]:
    """Let a function launch its kernels on the device of its first argument: Triton takes the current one."""

    @wraps(run)
    def on_its_device(first: Tensor, /, *arguments: _P.args, **options: _P.kwargs) -> _R:
        place: AbstractContextManager[Any] = nullcontext()
        if first.device.type == "cuda":
            place = torch.cuda.device(first.device)
        with place:
            return run(first, *arguments, **options)

    return on_its_device
