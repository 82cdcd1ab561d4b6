"""Block-sparse attention of prompts: XAttention (Xu et al. 2025, arXiv 2503.16428).

A block of 64 queries reads only some blocks of 64 keys. They are chosen before the attention, by a cheap estimate: the
sums of the scores along antidiagonals, 16 queries and 16 keys long. A softmax over them, divided by 16, estimates how
the queries' weights are spread over the blocks of keys. The blocks with the largest shares are read, until their shares
reach the threshold. The first block and the queries' own one are always read. The heads that share keys read the same
blocks, chosen by the mean of their shares.

The choice depends on the tokens of the text up to the end of the queries' block, and on nothing else. Blocks begin at
multiples of 64 tokens of the text, and only whole blocks are sparse: what lies before the first whole block of a piece,
or behind the last one, is read densely. So pieces that end at multiples of 64 give the same rows, however the text was
cut into them.

The kernels do all of this if they serve the tensors. The operators here do the same, and are the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, TypeAlias

import torch
from torch import Tensor

from rapid_integrations.cache import TILE, LayerRows
from rapid_integrations.cache.levels import restored
from rapid_integrations.errors import UnsupportedModelError
from rapid_integrations.kernels.cpu import prefill
from rapid_integrations.models.description import NotDescribedError

BLOCK: Final = TILE
STRIDE: Final = 16
"""Queries and keys whose antidiagonal is summed; the same as in select.cpp."""
DENSE_BLOCKS: Final = 16
"""The first blocks of a text read all keys, which are few; the same as in select.cpp."""

Dense: TypeAlias = Callable[[Tensor, Sequence[LayerRows]], Tensor]


@contextmanager
def sparse_prefill_taught(name: str) -> Iterator[None]:
    """Let the reason why a model cannot read prompts sparsely become an error that says what can be done."""
    try:
        yield
    except NotDescribedError as error:
        raise UnsupportedModelError(
            f"{name}: sparse_prefill serves described families (docs/models.md) with full attention in every layer, on "
            f"the processor; of this model, {error}. Leave it out"
        ) from None


def sparse_attention(
    query: Tensor, segments: Sequence[LayerRows], scale: float, threshold: float, dense: Dense
) -> Tensor:
    """Return the attention of the last T of L positions, (1, T, H, D), sparse for the whole blocks among them.

    Args:
        query: (1, H, T, D).
        segments: keys and values of L positions, as for `attend`.
        scale: of the scores.
        threshold: share of a block's estimated attention that the blocks it reads have together, below 1.
        dense: attends with all keys.
    """
    new, total = query.shape[2], sum(key.shape[2] for key, _ in segments)
    past = total - new
    first, last = -(-past // BLOCK) * BLOCK, total // BLOCK * BLOCK  # positions of whole blocks
    if last <= max(first, DENSE_BLOCKS * BLOCK):
        return dense(query, segments)
    first = max(first, DENSE_BLOCKS * BLOCK)
    parts = []
    if past < first:
        parts.append(dense(query[:, :, : first - past], up_to(segments, first)))
    inner, seen = query[:, :, first - past : last - past], up_to(segments, last)
    parts.append(_of_whole_blocks(inner, seen, scale, threshold))
    if last < total:
        parts.append(dense(query[:, :, last - past :], segments))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def up_to(segments: Sequence[LayerRows], end: int) -> list[LayerRows]:
    """Return the rows of the positions before `end`."""
    found, begin = [], 0
    for key, value in segments:
        rows = min(key.shape[2], end - begin)
        if rows > 0:
            found.append((key[:, :, :rows], value[:, :, :rows]))
        begin += key.shape[2]
    return found


def _of_whole_blocks(query: Tensor, segments: Sequence[LayerRows], scale: float, threshold: float) -> Tensor:
    in_tiles = all(key.shape[2] % TILE == 0 for key, _ in segments)
    if in_tiles and all(prefill.serves_attention(query, *rows) for rows in segments):
        taken = prefill.select_blocks(query, segments, scale, threshold)
        return prefill.attend(query, segments, scale, None, taken=taken)
    parts = ([restored(each, query.dtype) for each in held] for held in zip(*segments, strict=True))
    key, value = (each[0] if len(each) == 1 else torch.cat(each, dim=2) for each in parts)
    return attend_blocks(query, key, value, scale, select_blocks(query, key, scale, threshold))


def select_blocks(query: Tensor, key: Tensor, scale: float, threshold: float) -> Tensor:
    """Return which blocks of keys the blocks of queries read, (H_kv, T / BLOCK, L / BLOCK) bool.

    Args:
        query: (1, H, T, D), the last T of L positions.
        key: (1, H_kv, L, D).
        scale: of the scores.
        threshold: as for `sparse_attention`.
    """
    kv_heads, total, head_dim = key.shape[1:]
    new, blocks = query.shape[2], total // BLOCK
    group, steps = query.shape[1] // kv_heads, BLOCK // STRIDE
    keys = key[0].float().reshape(kv_heads, total // STRIDE, STRIDE * head_dim)
    strides = query[0].float().reshape(kv_heads, group, new // STRIDE, STRIDE, head_dim).flip(3)
    taken = torch.zeros(kv_heads, new // BLOCK, blocks, dtype=torch.bool, device=key.device)
    for row in range(new // BLOCK):
        count = blocks - new // BLOCK + row + 1
        if count <= DENSE_BLOCKS:
            taken[:, row, :count] = True
            continue
        own = strides[:, :, row * steps : (row + 1) * steps].reshape(kv_heads, group * steps, -1)
        scores = own @ keys[:, : count * steps].transpose(1, 2) * (scale / STRIDE)  # (H_kv, G * steps, strides)
        ahead = torch.ones(steps, steps, dtype=torch.bool, device=key.device).triu(1)
        scores.view(kv_heads, group, steps, -1)[..., -steps:].masked_fill_(ahead, float("-inf"))
        weights = torch.softmax(scores, dim=-1).view(kv_heads, group * steps, count, steps)
        shares = weights.mean(dim=1).sum(dim=2)  # (H_kv, count)
        always = torch.zeros(count, dtype=torch.bool, device=key.device)
        always[0] = always[-1] = True
        # Those that are always read come first, then the others by falling share.
        order = torch.where(always, shares + 2, shares).sort(dim=1, descending=True, stable=True).indices
        sorted_shares = shares.gather(1, order)
        before = sorted_shares.cumsum(dim=1) - sorted_shares
        needed = (before < threshold) | always[order]
        taken[:, row, :count] = torch.zeros_like(needed).scatter(1, order, needed)
    return taken


def attend_blocks(query: Tensor, key: Tensor, value: Tensor, scale: float, taken: Tensor) -> Tensor:
    """Return the causal attention of whole blocks with the blocks of keys that they take, (1, T, H, D).

    Args:
        query, key: as for `select_blocks`.
        value: (1, H_kv, L, D).
        scale: of the scores.
        taken: what `select_blocks` returned.
    """
    kv_heads, total, head_dim = key.shape[1:]
    heads, new = query.shape[1], query.shape[2]
    group, ahead = heads // kv_heads, torch.ones(BLOCK, BLOCK, dtype=torch.bool, device=key.device).triu(1)
    out = query.new_empty(1, new, heads, head_dim)
    blocks_of_keys, blocks_of_values = (each[0].view(kv_heads, total // BLOCK, BLOCK, -1) for each in (key, value))
    for row in range(new // BLOCK):
        rows = slice(row * BLOCK, (row + 1) * BLOCK)
        for head in range(kv_heads):
            chosen = taken[head, row].nonzero()[:, 0]  # the queries' own block is the last one
            keys, values = (each[head, chosen].flatten(0, 1) for each in (blocks_of_keys, blocks_of_values))
            own = (query[0, head * group : (head + 1) * group, rows] * scale).flatten(0, 1)  # (G * BLOCK, D)
            scores = own @ keys.t()
            scores.view(group, BLOCK, -1)[..., -BLOCK:].masked_fill_(ahead, float("-inf"))
            mixed = torch.softmax(scores, dim=-1) @ values
            out[0, rows, head * group : (head + 1) * group] = mixed.view(group, BLOCK, -1).transpose(0, 1)
    return out
