"""Attention over a long preallocated cache, as a function that transformers' models call.

This attention is registered under `ATTENTION_NAME` through transformers' public `AttentionInterface` and
`AttentionMaskInterface`. It serves one text without padding, so causality follows from shapes alone: the T queries are
the last T of the L keys. The keys may lie in several segments (`KVCache.shared`). There are four paths:

- A few queries on a long cache (decoding, verification): the query heads that share a key/value head are folded into
  the rows of one matrix product per KV head, so no key is copied or repeated. The scores are formed as K q^T, the
  orientation in which CPU kernels stream K once (K q^T took 228 us, q K^T took 1,106 us; docs/log/).
- Many queries (prefill) in bfloat16 on a CPU: this package's kernel runs if it serves the shapes
  (`kernels/cpu/prefill.cpp`). Otherwise the queries are computed in blocks, one KV head at a time. The scores then stay
  in the processor's cache, and keys behind a block are skipped. This is 1.7 times as fast as the fused kernel
  (docs/log/).
- On GPUs: the library's flash attention, for few queries and for many (`flash.py`). Whatever it does not serve is
  computed in blocks, as the library's fused attention with a mask takes memory for all scores there.
- Many queries in another dtype, or on Apple's GPUs: the library's fused attention runs.

The first path, the kernel and flash attention read segments where they lie. The others need one tensor, so the keys and
values of several segments are copied into one, of one layer at a time.

transformers' layers pass one tensor of keys. Behind a shared prefix it is the tail, and the segments before it go along
as an attribute of the tensor (`with_prefix`). A layer that computes something with the keys loses it. This is noticed
(`PrefixLostError`), and the whole keys are passed instead.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from rapid_integrations.cache import TILE, LayerRows, Rows
from rapid_integrations.cache.levels import restored
from rapid_integrations.errors import UnsupportedModelError
from rapid_integrations.kernels.cpu import prefill
from rapid_integrations.kernels.cpu.library import multiplies_prompts
from rapid_integrations.kernels.layers import PLAIN, AttentionKind
from rapid_integrations.models import flash
from rapid_integrations.models.mask import CausalMask, Sight, described_mask
from rapid_integrations.models.placement import multiplied_in

ATTENTION_NAME = "rapid"
MAX_FOLDED_QUERIES = 64
MAX_FOLDED_BEFORE_BLOCKS = 8  # used if the alternative is blocks of queries, or kernels that read few rows slowly
_BLOCK_ROWS = 256  # rows of a matrix product in a prefill: their scores stay in a core's cache

# transformers' layers pass these keyword arguments. They do not change the result for one unpadded text.
_HARMLESS = frozenset({"position_ids", "use_cache", "cache_position", "output_attentions", "output_hidden_states"})

_observed = threading.local()
_PREFIX = "_rapid_prefix"  # attribute of a tensor of keys or values


class PrefixLostError(Exception):
    """A layer gave its attention other keys than the cache returned, without the segments before them."""


def with_prefix(segments: list[LayerRows]) -> LayerRows:
    """Return the last segment's keys and values, which know the others."""
    keys, values = segments[-1]
    if prefix := segments[:-1]:
        setattr(keys, _PREFIX, prefix)
        setattr(values, _PREFIX, prefix)
    return keys, values


@contextmanager
def prefix_expected(expected: bool) -> Iterator[None]:
    """Let this thread's passes inside the block fail if their keys lack the segments before them."""
    before, _observed.prefix = getattr(_observed, "prefix", False), expected
    try:
        yield
    finally:
        _observed.prefix = before


@contextmanager
def tree_read(rows: Rows) -> Iterator[None]:
    """Let each query of this thread's passes inside the block see its ancestors alone, if the rows are a tree."""
    before, _observed.tree = getattr(_observed, "tree", None), rows if rows.parents is not None else None
    try:
        yield
    finally:
        _observed.tree = before


def register() -> None:
    """Make this attention known to transformers; safe to call again."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(ATTENTION_NAME, rapid_attention)
    # transformers silently passes no mask, and so no window, if the name is not registered here.
    AttentionMaskInterface.register(ATTENTION_NAME, described_mask)


@contextmanager
def windows_observed() -> Iterator[dict[int, int | None]]:
    """Yield a table from layer index to attention window, filled by this thread's passes inside the block."""
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
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention of the last T positions over all L, for one text.

    Args:
        module: the calling layer (unused but for messages).
        query: (1, H, T, D); T new positions.
        key: (1, H_kv, L, D); all positions, the new ones last. With a prefix (`with_prefix`), those behind it.
        value: (1, H_kv, L, D_v).
        attention_mask: what `described_mask` made, or None. Only its window is used, since there is no padding.
        scaling: factor on the scores; None is D ** -0.5.
        dropout: must be 0.
        sliding_window: each query sees this many keys, its own included; None sees all. A mask's window overrides it.
        is_causal: must not be False.
        softcap: scores become softcap * tanh(score / softcap).
        s_aux: (H,), attention sinks: for each head the score of a key without a value.

    Returns:
        (1, T, H, D_v), as transformers' layers expect it, and no weights.

    Raises:
        UnsupportedModelError: an argument that would change the result.
        PrefixLostError: `key` has no prefix, and `prefix_expected` says that it should.
    """
    unknown = sorted(
        name for name, value in kwargs.items() if value is not None and value is not False and name not in _HARMLESS
    )
    described = isinstance(attention_mask, CausalMask) and hasattr(attention_mask, "window")
    foreign = attention_mask is not None and not described
    if unknown or dropout or is_causal is False or foreign or query.shape[0] != 1:
        given = unknown or ["dropout" if dropout else "a mask, a batch or bidirectional attention"]
        raise UnsupportedModelError(
            f"{type(module).__name__} asks its attention for {', '.join(given)}, which this engine does not compute; "
            "it runs causal models with full, sliding-window or chunked attention"
        )
    chunk = None
    if described:
        assert isinstance(attention_mask, CausalMask)
        sliding_window, chunk = attention_mask.window, attention_mask.chunk_size
    if (observed := getattr(_observed, "windows", None)) is not None:
        observed[getattr(module, "layer_idx", None) or 0] = sliding_window or chunk
    prefix: list[LayerRows] | None = getattr(key, _PREFIX, None)
    if prefix is not getattr(value, _PREFIX, None) or (prefix is None and getattr(_observed, "prefix", False)):
        raise PrefixLostError
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    kind = AttentionKind(chunk, softcap, None if s_aux is None else s_aux.float())
    tree: Rows | None = getattr(_observed, "tree", None)
    # A model's layers may lie on other GPUs than the ids.
    seen = None if tree is None else tree.visible(sliding_window, chunk).to(query.device, non_blocking=True)
    return attend(query, [*(prefix or ()), (key, value)], scale, sliding_window, kind, seen), None


def attend(
    query: Tensor,
    segments: Sequence[LayerRows],
    scale: float,
    window: int | None,
    kind: AttentionKind = PLAIN,
    seen: Tensor | None = None,
) -> Tensor:
    """Return the attention of the last T of L positions, (1, T, H, D_v); see `rapid_attention`.

    Args:
        query: (1, H, T, D).
        segments: keys and values of L positions, one segment behind the other: each (1, H_kv, rows, D or D_v), or in
            eight bits (`cache.levels`).
        scale: of the scores.
        window: keys that a query sees, its own included; None: all.
        kind: what else the attention does.
        seen: (T, L) bool, True where a query sees a key, in place of causality and window (`Rows.visible`).
    """
    on_gpu = query.device.type == "cuda"
    if on_gpu and flash.serves(query, segments, window, kind, seen):
        return flash.attend(query, segments, scale, window, kind, seen)
    in_eight_bits = segments[0][0].dtype == torch.int8
    blocked = query.device.type == "cpu" and query.dtype == torch.bfloat16
    few = query.shape[2] <= (MAX_FOLDED_BEFORE_BLOCKS if blocked else MAX_FOLDED_QUERIES)
    in_tiles = all(key.shape[2] % TILE == 0 for key, _ in segments[:-1])
    # Kernels that multiply prompts read few queries fast, too, and each one has the same bits among many.
    by_kernels = seen is None and in_tiles and (in_eight_bits or not few or multiplies_prompts())
    if by_kernels and all(prefill.serves_attention(query, *rows) for rows in segments):
        return prefill.attend(query, segments, scale, window, kind)
    if (dtype := multiplied_in(query)) != query.dtype:
        segments = [(key.to(dtype), value.to(dtype)) for key, value in _restored(segments, dtype)]
        return attend(query.to(dtype), segments, scale, window, kind, seen).to(query.dtype)
    if seen is not None:
        return _folded(query, _restored(segments, query.dtype), scale, Sight(window, kind.chunk), kind, seen)
    total, new = sum(key.shape[2] for key, _ in segments), query.shape[2]
    sight = Sight(window, kind.chunk, 0)
    first = sight.begin(total - new)  # older keys are out of every query's sight
    segments, sight = _restored(_behind(segments, first), query.dtype), Sight(window, kind.chunk, first)
    if few:
        return _folded(query, segments, scale, sight, kind)
    key, value = (_joined(parts) for parts in zip(*segments, strict=True))
    if blocked or on_gpu or kind.softcap is not None or kind.sinks is not None:
        return _blocked(query, key, value, scale, sight, kind)
    return _fused(query, key, value, scale, sight)


def _behind(segments: Sequence[LayerRows], first: int) -> list[LayerRows]:
    """Return the rows of the positions from `first` on."""
    left, begin = [], 0
    for key, value in segments:
        skipped = max(0, first - begin)
        if skipped < key.shape[2]:
            left.append((key[:, :, skipped:], value[:, :, skipped:]))
        begin += key.shape[2]
    return left


def _restored(segments: Sequence[LayerRows], dtype: torch.dtype) -> Sequence[LayerRows]:
    """Return rows in eight bits as numbers, and other rows as they are."""
    return [(restored(key, dtype), restored(value, dtype)) for key, value in segments]


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=2)


def _folded(
    query: Tensor,
    segments: Sequence[LayerRows],
    scale: float,
    sight: Sight,
    kind: AttentionKind,
    seen: Tensor | None = None,
) -> Tensor:
    _, heads, new, _ = query.shape
    kv_heads, total = segments[0][0].shape[1], sum(key.shape[2] for key, _ in segments)
    group = heads // kv_heads
    rows = (query * scale).reshape(kv_heads, group * new, -1)  # (H_kv, G*T, D)
    by_key = [torch.bmm(key[0], rows.transpose(1, 2)) for key, _ in segments]  # each (H_kv, l, G*T)
    whole = by_key[0] if len(by_key) == 1 else torch.cat(by_key, dim=1)
    scores = _capped(whole.transpose(1, 2).contiguous(), kind)  # (H_kv, G*T, L)
    if seen is not None:
        scores.view(kv_heads, group, new, total).masked_fill_(~seen, float("-inf"))
    elif new > 1:
        by_query = scores.view(kv_heads, group, new, total)
        if sight.cuts(total):
            by_query.masked_fill_(~sight.visible(new, total, scores.device), float("-inf"))
        else:  # only the last T columns differ between the rows
            ahead = torch.ones(new, new, dtype=torch.bool, device=scores.device).triu(1)
            by_query[..., total - new :].masked_fill_(ahead, float("-inf"))
    sinks = (
        None if kind.sinks is None else kind.sinks.view(kv_heads, group, 1).expand(-1, -1, new).reshape(kv_heads, -1)
    )
    weights = _softmax(scores, sinks)
    parts = torch.split(weights, [key.shape[2] for key, _ in segments], dim=2) if len(segments) > 1 else (weights,)
    out = torch.bmm(parts[0], segments[0][1][0])  # (H_kv, G*T, D_v)
    for part, (_, value) in zip(parts[1:], segments[1:], strict=True):
        out = torch.baddbmm(out, part, value[0])
    # Some layers take a view of the result in another shape, which needs contiguous memory.
    return out.view(kv_heads, group, new, -1).permute(2, 0, 1, 3).reshape(1, new, heads, -1).contiguous()


def _blocked(query: Tensor, key: Tensor, value: Tensor, scale: float, sight: Sight, kind: AttentionKind) -> Tensor:
    _, heads, new, _ = query.shape
    kv_heads, total = key.shape[1], key.shape[2]
    group = heads // kv_heads
    past = total - new
    scaled = (query * scale).view(kv_heads, group, new, -1)
    out = query.new_empty(new, kv_heads, group, value.shape[-1])
    sinks = None if kind.sinks is None else kind.sinks.view(kv_heads, group)
    rows = max(1, _BLOCK_ROWS // group)
    for start in range(0, new, rows):
        end = min(new, start + rows)
        count = end - start
        first = max(0, sight.begin(past + start + sight.first) - sight.first)
        # Keys behind the block are skipped. If it sees all others, only its own keys differ between its queries.
        own = Sight(sight.window, sight.chunk, sight.first + first)
        seen = past + end - first
        visible = own.visible(count, seen, query.device) if own.cuts(seen) else None
        if visible is None:
            visible = Sight(None, None, 0).visible(count, count, query.device)
        for head in range(kv_heads):
            block = scaled[head, :, start:end].reshape(group * count, -1)
            scores = _capped(block @ key[0, head, first : past + end].t(), kind)  # (G * t, l)
            scores.view(group, count, -1)[..., -visible.shape[1] :].masked_fill_(~visible, float("-inf"))
            of_rows = None if sinks is None else sinks[head, :, None].expand(-1, count).reshape(-1)
            mixed = _softmax(scores, of_rows) @ value[0, head, first : past + end]
            out[start:end, head] = mixed.view(group, count, -1).transpose(0, 1)
    return out.view(1, new, heads, -1)


def _capped(scores: Tensor, kind: AttentionKind) -> Tensor:
    return scores if kind.softcap is None else kind.softcap * torch.tanh(scores / kind.softcap)


def _softmax(scores: Tensor, sinks: Tensor | None) -> Tensor:
    """Return the weights of (..., rows, L) scores; `sinks`, (..., rows), are scores of keys without values."""
    if sinks is None:
        return torch.softmax(scores, dim=-1)  # computed in float32 inside, whatever the dtype
    whole = torch.cat([scores.float(), sinks[..., None].float()], dim=-1)
    return torch.softmax(whole, dim=-1)[..., :-1].to(scores.dtype)


def _fused(query: Tensor, key: Tensor, value: Tensor, scale: float, sight: Sight) -> Tensor:
    new, total = query.shape[2], key.shape[2]
    grouped = query.shape[1] != key.shape[1]
    if new == total and not sight.cuts(total):
        out = scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale, enable_gqa=grouped)
    else:
        # `is_causal` aligns the triangle upper-left, which is wrong for a chunk behind a filled cache.
        mask = _additive_mask(new, total, sight, query.dtype, query.device)
        out = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale, enable_gqa=grouped)
    return out.transpose(1, 2).contiguous()


def _additive_mask(new: int, total: int, sight: Sight, dtype: torch.dtype, device: torch.device) -> Tensor:
    # A device's memory is not held for masks that nobody may ask for again.
    return _held_mask(new, total, sight, dtype) if device.type == "cpu" else _mask(new, total, sight, dtype, device)


@lru_cache(maxsize=4)  # every layer of a prefill chunk asks for the same one or two
def _held_mask(new: int, total: int, sight: Sight, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):  # a caller's own model may compute gradients with it
        return _mask(new, total, sight, dtype, torch.device("cpu"))


def _mask(new: int, total: int, sight: Sight, dtype: torch.dtype, device: torch.device) -> Tensor:
    mask = torch.zeros(new, total, dtype=dtype, device=device)
    return mask.masked_fill_(~sight.visible(new, total, device), float("-inf"))
