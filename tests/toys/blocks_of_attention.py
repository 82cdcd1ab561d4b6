"""Queries, keys and values whose attention differs from block to block."""

import torch

from rapid_integrations.models.sparse_attention import BLOCK


def drawn(new, total, group=2, kv_heads=2, width=32, seed=0, dtype=torch.bfloat16):
    """Return queries, keys and values whose attention differs from block to block."""
    random = torch.Generator().manual_seed(seed)
    query = 2 * torch.randn(1, new, group * kv_heads, width, generator=random).transpose(1, 2)
    of_blocks = torch.randn(1, kv_heads, total // BLOCK, 1, width, generator=random)
    noise = torch.randn(1, kv_heads, total // BLOCK, BLOCK, width, generator=random)
    key = (of_blocks + 0.3 * noise).reshape(1, kv_heads, total, width)
    value = torch.randn(1, kv_heads, total, width, generator=random)
    return [each.to(dtype) for each in (query, key, value)]
