"""Queries, keys and values, and their attention computed one by one in float64."""

import torch


def reference(query, key, value, scale, window):
    """Each query looks back from its own position, one at a time."""
    heads, new = query.shape[1:3]
    total, group = key.shape[2], heads // key.shape[1]
    query, key, value = query.double(), key.double(), value.double()
    out = torch.empty(1, new, heads, value.shape[-1], dtype=torch.float64)
    for head in range(heads):
        for i in range(new):
            position = total - new + i
            first = 0 if window is None else max(0, position - window + 1)
            seen = slice(first, position + 1)
            scores = key[0, head // group, seen] @ query[0, head, i] * scale
            out[0, i, head] = torch.softmax(scores, 0) @ value[0, head // group, seen]
    return out


def inputs(seed, kv_heads, group, new, total, dtype, width=8, value_width=8, spread=1.0):
    """Return query, key and value laid out as in a forward pass.

    The query is a transposed view, keys and values are the front of a longer buffer whose rest is NaN.
    """
    generator = torch.Generator().manual_seed(seed)
    query = spread * torch.randn(1, new, kv_heads * group, width, generator=generator)
    buffers = []
    for size in (width, value_width):
        buffer = torch.full((1, kv_heads, total + 11, size), float("nan"), dtype=dtype)
        buffer[:, :, :total] = torch.randn(1, kv_heads, total, size, generator=generator).to(dtype)
        buffers.append(buffer[:, :, :total])
    return query.to(dtype).transpose(1, 2), *buffers
