"""Attention on GPUs by the library's flash operator and the log-sums that it returns.

Few queries (decoding, verification): the heads that share a key/value head are folded into the rows of one call over
all keys that every query sees. So each key is read once, and the operator spreads the keys over the GPU. The others
(the new keys, and the edge of a sliding window) are few and computed by hand. Each part gives a result and the
logarithm of its sum of weights, from which `merged` makes the whole. Shared segments are parts of their own.

Many queries (prefill): earlier segments are parts without a mask. The last one has the triangle, which the operator
aligns lower right. A window is the operator's own; the keys of several segments are joined for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TypeAlias

import torch
from torch import Tensor

from rapid_integrations.cache import LayerRows
from rapid_integrations.cache.out_of_memory import is_out_of_memory
from rapid_integrations.kernels.layers import AttentionKind
from rapid_integrations.models.mask import Sight

FEW_QUERIES = 64
_WIDEST, _MULTIPLE = 256, 8  # columns of a head

Part: TypeAlias = "tuple[Tensor, Tensor]"
"""What a part of the keys gives: (..., rows, D) float32, and the log-sum of its scores, (..., rows) float32."""


def serves(
    query: Tensor, segments: Sequence[LayerRows], window: int | None, kind: AttentionKind, seen: Tensor | None
) -> bool:
    """Return whether this attention computes it; see `attention.attend` for the arguments."""
    width, new = query.shape[3], query.shape[2]
    total = sum(key.shape[2] for key, _ in segments)
    cuts = Sight(window, kind.chunk).cuts(total)
    return (
        query.dtype in (torch.bfloat16, torch.float16)
        and width == segments[0][1].shape[3]
        and width % _MULTIPLE == 0
        and width <= _WIDEST
        and kind.softcap is None
        and (new <= FEW_QUERIES or kind.chunk is None or not cuts)
        and (seen is None or (new <= FEW_QUERIES and not cuts))  # a tree's windows end at the depths of its tokens
        and runs_on(query.device)
    )


@cache
def runs_on(device: torch.device) -> bool:
    """Return whether the operator runs on a device; old ones refuse it."""
    rows = torch.zeros(1, 1, 1, 64, dtype=torch.bfloat16, device=device)
    try:
        over(rows, rows, rows, 1.0)
    except RuntimeError as error:
        if is_out_of_memory(error):  # another time it may run
            raise
        return False
    return True


def attend(
    query: Tensor,
    segments: Sequence[LayerRows],
    scale: float,
    window: int | None,
    kind: AttentionKind,
    seen: Tensor | None = None,
) -> Tensor:
    """Return the attention of the last T of L positions, (1, T, H, D); see `attention.attend`."""
    if query.shape[2] <= FEW_QUERIES:
        return _few(query, segments, scale, Sight(window, kind.chunk), kind.sinks, seen)
    return _many(query, segments, scale, window, kind.sinks)


def over(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Part:
    """Return what queries (1, H, T, D) make of all keys (1, H_kv, L, D): (1, H, T, D) and (1, H, T)."""
    return _operator(query, key, value, scale, causal=False, window=None)


def triangle(query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Part:
    """Do `over` for queries that are the last of the keys, each of which sees none behind it."""
    return _operator(query, key, value, scale, causal=True, window=window)


def _operator(query: Tensor, key: Tensor, value: Tensor, scale: float, *, causal: bool, window: int | None) -> Part:
    by_position = (each.transpose(1, 2) for each in (query, key, value))
    out, log_sum = torch.ops.aten._flash_attention_forward(
        *by_position,
        None,
        None,
        query.shape[2],
        key.shape[2],
        0.0,
        causal,
        False,
        scale=scale,
        window_size_left=None if window is None else window - 1,
        window_size_right=0 if causal else None,
    )[:2]
    return out.transpose(1, 2).float(), log_sum[..., : query.shape[2]].float()


def merged(parts: Sequence[Part], sinks: Tensor | None = None) -> Tensor:
    """Return the attention over all parts' keys, (..., rows, D).

    Args:
        parts: a row that sees no key of a part has the log-sum -inf there, and any number as its result.
        sinks: (..., rows), the score of a key without a value.
    """
    logs = torch.stack([log_sum for _, log_sum in parts])
    whole = logs.logsumexp(0) if sinks is None else torch.logaddexp(logs.logsumexp(0), sinks)
    shares = (logs - whole).exp().unsqueeze(-1)
    out = shares.select(0, 0) * parts[0][0]
    for index, (result, _) in enumerate(parts[1:], start=1):
        out = out + shares.select(0, index) * result
    return out


def by_hand(rows: Tensor, keys: Tensor, values: Tensor, scale: float, seen: Tensor) -> Part:
    """Return what a few keys give.

    Args:
        rows: (H_kv, G, T, D).
        keys, values: (H_kv, l, D).
        scale: of the scores.
        seen: (T, l) bool.
    """
    scores = torch.einsum("hgtd,hld->hgtl", rows.float() * scale, keys.float())
    scores = scores.masked_fill(~seen, float("-inf"))
    log_sum = scores.logsumexp(-1)
    # A row that sees none of them has weights of exp(-inf) = 0, not 0 / 0.
    weights = (scores - log_sum.clamp(min=torch.finfo(torch.float32).min).unsqueeze(-1)).exp()
    return torch.einsum("hgtl,hld->hgtd", weights, values.float()), log_sum


def _few(
    query: Tensor,
    segments: Sequence[LayerRows],
    scale: float,
    sight: Sight,
    sinks: Tensor | None,
    seen: Tensor | None,
) -> Tensor:
    _, heads, new, width = query.shape
    kv_heads = segments[0][0].shape[1]
    group = heads // kv_heads
    total = sum(key.shape[2] for key, _ in segments)
    past = total - new
    first, edge = min(past, sight.begin(past)), min(past, sight.begin(total - 1))  # keys between are of some queries
    folded = query.reshape(1, kv_heads, group * new, width)
    rows = folded.view(kv_heads, group, new, width)
    parts = []
    for key, value in _between(segments, edge, past):
        result, log_sum = over(folded, key, value, scale)
        parts.append((result.reshape(kv_heads, group, new, width), log_sum.reshape(kv_heads, group, new)))
    near = [*_between(segments, first, edge), *_between(segments, past, total)]
    keys, values = (torch.cat(each, dim=2).squeeze(0) for each in zip(*near, strict=True))
    if seen is None:
        visible = Sight(sight.window, sight.chunk, first).visible(new, total - first, query.device)
        seen = torch.cat([visible.narrow(1, 0, edge - first), visible.narrow(1, past - first, new)], dim=1)
    else:  # no window cuts anything here
        seen = seen.narrow(1, past, new)
    parts.append(by_hand(rows, keys, values, scale, seen))
    of_heads = None if sinks is None else sinks.view(kv_heads, group, 1)
    out = merged(parts, of_heads).to(query.dtype)  # (H_kv, G, T, D)
    return out.permute(2, 0, 1, 3).reshape(1, new, heads, width)


def _many(
    query: Tensor, segments: Sequence[LayerRows], scale: float, window: int | None, sinks: Tensor | None
) -> Tensor:
    new, total = query.shape[2], sum(key.shape[2] for key, _ in segments)
    cuts = Sight(window, None).cuts(total)
    first = Sight(window, None).begin(total - new)
    held = list(_between(segments, first, total))
    if len(held) > 1 and (cuts or held[-1][0].shape[2] < new):
        keys, values = (torch.cat(each, dim=2) for each in zip(*held, strict=True))
        held = [(keys, values)]
    parts = [over(query, key, value, scale) for key, value in held[:-1]]
    parts.append(triangle(query, *held[-1], scale, window if cuts else None))
    if len(parts) == 1 and sinks is None:
        out = parts[0][0]
    else:
        out = merged(parts, None if sinks is None else sinks.view(1, -1, 1))
    return out.to(query.dtype).transpose(1, 2).contiguous()


def _between(segments: Sequence[LayerRows], begin: int, end: int) -> list[LayerRows]:
    """Return the rows of the positions from `begin` to `end`; no segment is empty."""
    found, at = [], 0
    for key, value in segments:
        first, last = max(begin - at, 0), min(end - at, key.shape[2])
        if first < last:
            found.append((key.narrow(2, first, last - first), value.narrow(2, first, last - first)))
        at += key.shape[2]
    return found
