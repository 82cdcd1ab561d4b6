"""Replaces a model's mask matrix by a description of it (causal, or a causal window) and passes that to the attention.

transformers' models request a mask by a function of positions, and pass the result to each layer's attention. Some
layers also pass their window when they call the attention, others rely on the mask alone. So the mask decides here, as
it does in transformers' eager attention.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rapid_integrations.errors import UnsupportedModelError


@dataclass(frozen=True)
class Sight:
    """Which keys a query sees, beside those before it.

    Attributes:
        window: so many keys, its own included; None: all.
        chunk: the keys of the chunk of so many positions that it lies in; None: all.
        first: position of the first key that there is.
    """

    window: int | None
    chunk: int | None
    first: int = 0

    def begin(self, position: int) -> int:
        """Return the position of the first key that a query sees."""
        begin = 0 if self.window is None else max(0, position + 1 - self.window)
        return begin if self.chunk is None else max(begin, position // self.chunk * self.chunk)

    def visible(self, new: int, total: int, device: torch.device) -> Tensor:
        """Return (T, L), True if query i, at the position first + L - T + i, sees key j."""
        queries = torch.arange(self.first + total - new, self.first + total, device=device)[:, None]
        keys = torch.arange(self.first, self.first + total, device=device)[None, :]
        visible = keys <= queries
        if self.window is not None:
            visible &= keys > queries - self.window
        if self.chunk is not None:
            visible &= keys >= queries // self.chunk * self.chunk
        return visible

    def cuts(self, total: int) -> bool:
        """Return whether the last of `total` queries does not see all keys before it."""
        return self.begin(self.first + total - 1) > self.first


class CausalMask(Tensor):
    """Stands for a mask and holds no numbers. `window` and `chunk_size` are those of `Sight`."""

    window: int | None
    chunk_size: int | None

    @staticmethod
    def of(window: int | None, chunk: int | None = None) -> CausalMask:
        """Return the mask for a window and chunks."""
        mask: CausalMask = torch.Tensor._make_subclass(CausalMask, torch.empty(1, 1, 1, 0))
        mask.window, mask.chunk_size = window, chunk
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
    # A mask function does not describe itself, so it is evaluated for the first query and the last two. Of two queries
    # behind each other, one at least tells chunks and windows apart.
    last = int(q_offset) + q_length - 1
    queries = {int(q_offset), max(int(q_offset), last - 1), last}
    keys = torch.arange(kv_offset, kv_offset + kv_length)
    for sight in (Sight(local_size, None), Sight(None, local_size), Sight(None, None)):
        if all(torch.equal(_seen(mask_function, query, keys), _expected(query, keys, sight)) for query in queries):
            return CausalMask.of(sight.window, sight.chunk)
    raise UnsupportedModelError(
        "a model's attention has a mask that is neither causal nor a sliding window nor chunks (it looks in both "
        "directions, say), which this engine does not compute"
    )


def _seen(mask_function: Any, query: int, keys: Tensor) -> Tensor:
    zero = torch.zeros((), dtype=torch.long)
    try:
        seen = mask_function(zero, zero, torch.tensor(query), keys)
    except (RuntimeError, IndexError, TypeError):
        return torch.empty(0, dtype=torch.bool)
    return torch.as_tensor(seen, device="cpu").to(torch.bool).expand(len(keys))


def _expected(query: int, keys: Tensor, sight: Sight) -> Tensor:
    return (keys <= query) & (keys >= sight.begin(query))
