"""The protocol between the decoding loop and whatever computes logits."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from rapid_integrations.cache import KVCache


@runtime_checkable
class CausalLM(Protocol):
    """A decoder-only language model.

    Attributes:
        name: for messages and statistics.
        context_window: tokens that its positions reach.
        vocab_size: width of its logits (padding rows included).
        device: where token ids must lie.
        dtype: what it computes in.
        num_parameters: for telling a larger drafter from a smaller one.
        weight_bytes: bytes of weights that one decode step reads.
    """

    name: str
    context_window: int
    vocab_size: int
    device: torch.device
    dtype: torch.dtype
    num_parameters: int

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights that one decode step reads."""
        ...

    def fingerprint(self) -> str:
        """Return a digest that identifies the model with its present weights, in any process.

        Raises:
            CacheError: the weights cannot be identified (they lie on several devices, say). Nothing that the model has
                prefilled is then saved to disk.
        """
        ...

    def close(self) -> None:
        """Undo every change to objects that belong to the caller; safe to call again."""
        ...

    def new_cache(self, capacity: int) -> KVCache:
        """Return an empty cache with room for `capacity` tokens."""
        ...

    def forward(self, token_ids: Tensor, cache: KVCache, keep: int) -> Tensor:
        """Read T further tokens and return the logits that follow the last `keep` of them.

        Args:
            token_ids: (T,) int64, on `device`; T >= 1.
            cache: the keys and values of the tokens read so far; grows by T.
            keep: 0 <= keep <= T; with 0 the output head is skipped.

        Returns:
            (keep, vocab_size) float32.

        Raises:
            NotANumberError: a logit is NaN.
        """
        ...
