"""Attention over a long preallocated cache, as a function that transformers' models call.

Registered under `ATTENTION_NAME` through transformers' public `AttentionInterface` and `AttentionMaskInterface`. It
serves one text without padding, so that causality follows from shapes alone: the T queries are the last T of the L
keys. The paths:

- few queries on a long cache (decoding, verification): the query heads that share a key/value head are folded into
  the rows of one matrix product per KV head, so that no key is copied or repeated. The scores are formed as K q^T,
  the orientation in which CPU kernels stream K once (K q^T took 228 us where q K^T took 1,106 us; docs/log/).
- many queries (prefill) in bfloat16 on a CPU: this package's kernel where it serves (`native/prefill.cpp`); otherwise
  blocks of queries, of one KV head each, so that the scores stay in the processor's cache and nothing behind a block is
  computed: 1.7 times as fast as the fused kernel (docs/log/).
- many queries elsewhere: the library's fused attention.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from rapid_integrations.errors import UnsupportedModelError
from rapid_integrations.kernels.cpu import prefill
from rapid_integrations.models.mask import CausalMask, described_mask

ATTENTION_NAME = "rapid"
MAX_FOLDED_QUERIES = 64
MAX_FOLDED_BEFORE_BLOCKS = 8  # where blocks are the alternative
_BLOCK_ROWS = 256  # rows of a matrix product in a prefill: their scores stay in a core's cache

# Keyword arguments that transformers' layers pass along and that change nothing in the result for one unpadded text.
_HARMLESS = frozenset({"position_ids", "use_cache", "cache_position", "output_attentions", "output_hidden_states"})

_MEANINGS = {"s_aux": "attention sinks (s_aux)", "softcap": "softcapped scores (softcap)"}
_observed = threading.local()


def register() -> None:
    """Make this attention known to transformers; safe to call again."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(ATTENTION_NAME, rapid_attention)
    # A name that is missing there gets no mask without a word, and with it no window.
    AttentionMaskInterface.register(ATTENTION_NAME, described_mask)


@contextmanager
def windows_observed() -> Iterator[dict[int, int | None]]:
    """Yield a table that this thread's passes inside fill: the window of each layer (its index) that attends."""
    observed: dict[int, int | None] = {}
    before, _observed.windows = getattr(_observed, "windows", None), observed
    try:
        yield observed
    finally:
        _observed.windows = before


def rapid_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention of the last T positions over all L, for one text.

    Args:
        module: the calling layer (unused but for messages).
        query: (1, H, T, D); T new positions.
        key: (1, H_kv, L, D); all positions, the new ones last.
        value: (1, H_kv, L, D_v).
        attention_mask: what `described_mask` made, whose window counts; or None. There is no padding.
        scaling: factor on the scores; None is D ** -0.5.
        dropout: must be 0.
        sliding_window: each query sees this many keys, its own included; None sees all. Counts where there is no mask.
        is_causal: must not be False.

    Returns:
        (1, T, H, D_v), as transformers' layers expect it, and no weights.

    Raises:
        UnsupportedModelError: an argument that would change the result (softcap, sinks, ...).
    """
    unknown = sorted(
        name for name, value in kwargs.items() if value is not None and value is not False and name not in _HARMLESS
    )
    described = isinstance(attention_mask, CausalMask) and hasattr(attention_mask, "window")
    foreign = attention_mask is not None and not described
    if unknown or dropout or is_causal is False or foreign or query.shape[0] != 1:
        given = [_MEANINGS.get(name, name) for name in unknown]
        given = given or ["dropout" if dropout else "a mask, a batch or bidirectional attention"]
        raise UnsupportedModelError(
            f"{type(module).__name__} asks its attention for {', '.join(given)}, which this engine does not compute; "
            "it runs causal models with full or sliding-window attention"
        )
    if described:
        assert isinstance(attention_mask, CausalMask)
        sliding_window = attention_mask.window
    if (observed := getattr(_observed, "windows", None)) is not None:
        observed[getattr(module, "layer_idx", None) or 0] = sliding_window
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return attend(query, key, value, scale, sliding_window), None


def attend(query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
    """Return the attention of the last T of L positions, (1, T, H, D_v); see `rapid_attention`."""
    blocked = query.device.type == "cpu" and query.dtype == torch.bfloat16
    few = query.shape[2] <= (MAX_FOLDED_BEFORE_BLOCKS if blocked else MAX_FOLDED_QUERIES)
    if not few and prefill.serves_attention(query, key, value):
        return prefill.attend(query, key, value, scale, window)
    if window is not None:
        first = max(0, key.shape[2] - query.shape[2] - window + 1)  # older keys are out of every window
        key, value = key[:, :, first:], value[:, :, first:]
        if window >= key.shape[2]:
            window = None
    if few:
        return _folded(query, key, value, scale, window)
    return (_blocked if blocked else _fused)(query, key, value, scale, window)


def _folded(query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
    _, heads, new, _ = query.shape
    kv_heads, total = key.shape[1], key.shape[2]
    group = heads // kv_heads
    rows = (query * scale).reshape(kv_heads, group * new, -1)  # (H_kv, G*T, D)
    scores = torch.bmm(key[0], rows.transpose(1, 2)).transpose(1, 2).contiguous()  # (H_kv, G*T, L)
    if new > 1:
        # Only the last T columns (and, with a window, the first T) differ between the rows.
        by_query = scores.view(kv_heads, group, new, total)
        ahead = torch.ones(new, new, dtype=torch.bool, device=scores.device).triu(1)
        by_query[..., total - new :].masked_fill_(ahead, float("-inf"))
        if window is not None:
            by_query.masked_fill_(~_visible(new, total, window, scores.device), float("-inf"))
    elif window is not None and window < total:
        scores[..., : total - window] = float("-inf")
    weights = torch.softmax(scores, dim=-1)  # computed in float32 inside, whatever the dtype
    out = torch.bmm(weights, value[0])  # (H_kv, G*T, D_v)
    # Some layers view what they get in another shape, which needs it to lie in one piece.
    return out.view(kv_heads, group, new, -1).permute(2, 0, 1, 3).reshape(1, new, heads, -1).contiguous()


def _blocked(query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
    _, heads, new, _ = query.shape
    kv_heads, total = key.shape[1], key.shape[2]
    group = heads // kv_heads
    past = total - new
    scaled = (query * scale).view(kv_heads, group, new, -1)
    out = query.new_empty(new, kv_heads, group, value.shape[-1])
    rows = max(1, _BLOCK_ROWS // group)
    for start in range(0, new, rows):
        end = min(new, start + rows)
        count, first = end - start, 0 if window is None else max(0, past + start - window + 1)
        # Keys behind the block are not computed at all. Without a window only its own ones differ between its queries.
        own = _visible(count, count if window is None else past + end - first, window, query.device)
        for head in range(kv_heads):
            block = scaled[head, :, start:end].reshape(group * count, -1)
            scores = block @ key[0, head, first : past + end].t()  # (G * t, l)
            scores.view(group, count, -1)[..., -own.shape[1] :].masked_fill_(~own, float("-inf"))
            weights = torch.softmax(scores, dim=-1)  # computed in float32 inside
            mixed = weights @ value[0, head, first : past + end]
            out[start:end, head] = mixed.view(group, count, -1).transpose(0, 1)
    return out.view(1, new, heads, -1)


def _fused(query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
    new, total = query.shape[2], key.shape[2]
    grouped = query.shape[1] != key.shape[1]
    if new == total and window is None:
        out = scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale, enable_gqa=grouped)
    else:
        # `is_causal` aligns the triangle upper-left, which is wrong for a chunk behind a filled cache.
        mask = _additive_mask(new, total, window, query.dtype, query.device)
        out = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale, enable_gqa=grouped)
    return out.transpose(1, 2).contiguous()


def _visible(new: int, total: int, window: int | None, device: torch.device) -> Tensor:
    """Return (T, L), True where query i (position L - T + i) sees key j."""
    queries = torch.arange(total - new, total, device=device)[:, None]
    keys = torch.arange(total, device=device)[None, :]
    visible = keys <= queries
    return visible if window is None else visible & (keys > queries - window)


@lru_cache(maxsize=4)  # every layer of a prefill chunk asks for the same one or two
def _additive_mask(new: int, total: int, window: int | None, dtype: torch.dtype, device: torch.device) -> Tensor:
    mask = torch.zeros(new, total, dtype=dtype, device=device)
    return mask.masked_fill_(~_visible(new, total, window, device), float("-inf"))
