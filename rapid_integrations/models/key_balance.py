"""Factors that give all dimensions of a layer's keys a similar size before they are stored in eight bits.

Keys of some models have a few dimensions that are far larger than the others (Qwen2's biases do that), so that one
scale would leave the others few levels. Keys are stored divided by powers of two, and queries are multiplied with them.
This changes no score and rounds nothing. The factors are measured once for a model, on a fixed text.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from rapid_integrations.kernels.layers import Rope

PROBE_TOKENS: Final = 72
_SKIPPED = 8  # first tokens, whose keys many models make unlike all others
_LEAST = 1e-30  # dimensions of smaller numbers stay as they are


def probe_ids(tokens: int, device: torch.device) -> Tensor:
    """Return the text, (PROBE_TOKENS,) int64 ids below `tokens`: the same in every process."""
    steps = torch.arange(1, PROBE_TOKENS + 1, dtype=torch.int64) * 2654435761 % 2**32
    return (steps % tokens).to(device)


def balance_of(keys: Tensor, rope: Rope) -> Tensor:
    """Return the powers of two, (H_kv, D) float32, by which a layer's keys are divided before they are stored.

    Each is near the largest number in its dimension. Two dimensions that are rotated together have the same one, since
    a rotation moves numbers between them.

    Args:
        keys: (1, H_kv, PROBE_TOKENS, D), as the layer computes them for the text.
        rope: how the layer rotates them.
    """
    squares = keys[0, :, _SKIPPED:].float().square()  # (H_kv, T, D)
    if rope.pairs:
        turned = squares[..., : 2 * rope.pairs]
        along = -1 if rope.interleaved else -2
        shape = (rope.pairs, 2) if rope.interleaved else (2, rope.pairs)
        pairs = turned.reshape(*turned.shape[:-1], *shape)
        squares = squares.clone()
        squares[..., : 2 * rope.pairs] = pairs.sum(along, keepdim=True).expand_as(pairs).flatten(-2)
    most = squares.amax(dim=1).sqrt()  # (H_kv, D)
    return torch.where(most > _LEAST, torch.exp2(most.clamp(min=_LEAST).log2().round()), 1.0)


def with_queries(balance: Tensor, heads: int) -> Tensor:
    """Return factors of queries and keys, (H + H_kv, D), of those by which keys are divided, (H_kv, D)."""
    return torch.cat([balance.repeat_interleave(heads // len(balance), dim=0), 1 / balance])
