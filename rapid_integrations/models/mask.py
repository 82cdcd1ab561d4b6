"""Replaces a model's mask matrix by a description of it (causal, or a causal window) and passes that to the attention.

transformers' models request a mask by a function of positions, and pass the result to each layer's attention. Some
layers also pass their window when they call the attention, others rely on the mask alone. So the mask decides here, as
it does in transformers' eager attention.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rapid_integrations.errors import UnsupportedModelError


class CausalMask(Tensor):
    """Stands for a mask and holds no numbers. A query sees `window` keys, its own included; None means all."""

    window: int | None

    @staticmethod
    def of(window: int | None) -> CausalMask:
        """Return the mask for a window."""
        mask: CausalMask = torch.Tensor._make_subclass(CausalMask, torch.empty(1, 1, 1, 0))
        mask.window = window
        return mask

    def __getitem__(self, index: Any) -> CausalMask:
        """Return itself, because layers slice a mask to the number of keys."""
        return self


def described_mask(
    *,
    mask_function: Any,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    attention_mask: Tensor | None = None,
    local_size: int | None = None,
    **kwargs: Any,
) -> CausalMask:
    """Return the description of a mask. The arguments are those that transformers passes to mask functions.

    Raises:
        UnsupportedModelError: the mask is neither fully causal nor a causal window.
    """
    from transformers.masking_utils import causal_mask_function

    if attention_mask is not None and not bool(attention_mask.all()):
        raise UnsupportedModelError("a model masks tokens (padding), which this engine does not support")
    if mask_function is causal_mask_function:
        return CausalMask.of(None)
    # A mask function does not describe itself, so it is evaluated for the first and the last query.
    keys = torch.arange(kv_offset, kv_offset + kv_length)
    for window in (local_size, None):
        if all(
            torch.equal(_seen(mask_function, query, keys), _expected(query, keys, window))
            for query in {int(q_offset), int(q_offset) + q_length - 1}
        ):
            return CausalMask.of(window)
    raise UnsupportedModelError(
        "a model's attention has a mask that is neither causal nor a sliding window (chunks, or both directions), "
        "which this engine does not compute"
    )


def _seen(mask_function: Any, query: int, keys: Tensor) -> Tensor:
    zero = torch.zeros((), dtype=torch.long)
    try:
        seen = mask_function(zero, zero, torch.tensor(query), keys)
    except (RuntimeError, IndexError, TypeError):
        return torch.empty(0, dtype=torch.bool)
    return torch.as_tensor(seen, device="cpu").to(torch.bool).expand(len(keys))


def _expected(query: int, keys: Tensor, window: int | None) -> Tensor:
    seen = keys <= query
    return seen if window is None else seen & (keys > query - window)
