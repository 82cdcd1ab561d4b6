"""What a prefill does between its matrix products, many tokens at a time; see prefill.cpp.

Only with the code for vectors (numbers.h).
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from rapid_integrations.cache import TILE, LayerRows
from rapid_integrations.cache.levels import SCALE_BYTES
from rapid_integrations.kernels.cpu.interface import KV_BF16, KV_INT8, Attention, LayerSegment, Recurring, Rotation
from rapid_integrations.kernels.cpu.library import loaded_library
from rapid_integrations.kernels.cpu.native_layers import NativeRecurrence
from rapid_integrations.kernels.cpu.structs import act_struct, norm_struct, recurrence_struct, rope_struct, sight_struct
from rapid_integrations.kernels.layers import PLAIN, Activation, AttentionKind, Norm, Rope, Xielu


def serves_prefill(*tensors: Tensor) -> bool:
    """Whether the kernels are loaded and have a path for this processor, and all of these are bfloat16 on it."""
    library = loaded_library()
    return (
        library is not None
        and bool(library.rapid_fast_path())
        and all(each.dtype == torch.bfloat16 and each.device.type == "cpu" for each in tensors)
    )


def serves_attention(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether `attend` takes these: heads of a width that there is code for, each one's numbers together.

    What it computes has no gradient: a model that is somebody else's may be asked for one.
    """
    library = loaded_library()
    return (
        serves_prefill(*((query,) if key.dtype == value.dtype == torch.int8 else (query, key, value)))
        and library is not None
        and bool(library.rapid_serves_head_dim(query.shape[-1]))
        and key.shape == value.shape
        and query.shape[-1] == key.shape[-1] - (SCALE_BYTES if key.dtype == torch.int8 else 0)
        and not (torch.is_grad_enabled() and any(each.requires_grad for each in (query, key, value)))
        and query.stride(3) == 1
        and all(each.stride(3) == 1 and each.stride(2) == each.shape[3] for each in (key, value))
    )


def attend(
    query: Tensor,
    segments: Sequence[LayerRows],
    scale: float,
    window: int | None,
    kind: AttentionKind = PLAIN,
    taken: Tensor | None = None,
) -> Tensor:
    """Return the causal attention of the last T of L positions, (1, T, H, D).

    Args:
        query: (1, H, T, D).
        segments: keys and values of L positions, one segment behind the other: each (1, H_kv, rows, D), or
            (1, H_kv, rows, D + 4) in eight bits, as `serves_attention` has them. Each one but the last has a multiple
            of `TILE` rows.
        scale: of the scores, above 0.
        window: keys that a query sees, its own included; None: all.
        kind: what else the attention does.
        taken: (H_kv, T / TILE, L / TILE) bool, which blocks of keys a block of queries reads, the first and its own
            among them; T and L are then multiples of `TILE`. None: all.
    """
    library = loaded_library()
    assert library is not None
    _, heads, new, head_dim = query.shape
    call = _attention(query, segments, scale, window, kind)
    if taken is not None:
        assert taken.is_contiguous() and taken.shape == (call.kv_heads, new // TILE, (call.past + new) // TILE)
        call.taken = taken.data_ptr()
    out = torch.empty(1, new, heads, head_dim, dtype=torch.bfloat16, device="cpu")
    call.out = out.data_ptr()
    if library.rapid_attend(ctypes.byref(call)):
        raise MemoryError("attention found no memory for what it computes on the way")
    return out


def select_blocks(query: Tensor, segments: Sequence[LayerRows], scale: float, threshold: float) -> Tensor:
    """Return which blocks of keys the blocks of queries read, (H_kv, T / TILE, L / TILE) bool; see select.cpp.

    Args:
        query, segments, scale: as for `attend`; T and L are multiples of `TILE`.
        threshold: share of a block's estimated attention that the blocks it reads have together.
    """
    library = loaded_library()
    assert library is not None
    call = _attention(query, segments, scale, None, PLAIN)
    shape = call.kv_heads, call.rows // TILE, (call.past + call.rows) // TILE
    taken = torch.empty(shape, dtype=torch.bool, device="cpu")
    if library.rapid_select_blocks(ctypes.addressof(call), threshold, taken.data_ptr()):
        raise MemoryError("the selection of blocks found no memory for what it computes on the way")
    return taken


def _attention(
    query: Tensor, segments: Sequence[LayerRows], scale: float, window: int | None, kind: AttentionKind
) -> Attention:
    """Return the call of `attend`, without its output."""
    _, heads, new, head_dim = query.shape
    asked, total = (LayerSegment * len(segments))(), 0
    for segment, (key, value) in zip(asked, segments, strict=True):
        segment.begin, total = total, total + key.shape[2]
        segment.key_stride, segment.value_stride = (each.stride(1) * each.element_size() for each in (key, value))
        segment.keys, segment.values = key.data_ptr(), value.data_ptr()
    return Attention(
        rows=new,
        heads=heads,
        kv_heads=segments[0][0].shape[1],
        head_dim=head_dim,
        threads=torch.get_num_threads(),
        kv=KV_INT8 if segments[0][0].dtype == torch.int8 else KV_BF16,
        sight=sight_struct(scale, window, kind),
        sinks=None if kind.sinks is None else kind.sinks.data_ptr(),
        past=total - new,
        row_stride=query.stride(2),
        head_stride=query.stride(1),
        segments=len(segments),
        segment=asked,
        queries=query.data_ptr(),
    )


def rotate(
    qkv: Tensor,
    heads: int,
    kv_heads: int,
    norms: tuple[Norm | None, Norm | None],
    rope: Rope,
    cos: Tensor,
    sin: Tensor,
) -> Tensor:
    """Return queries and keys, normalised where the model does that, and rotated: (T, H + H_kv, D).

    Args:
        qkv: (T, H + 2 H_kv, D), bfloat16.
        heads, kv_heads: H and H_kv.
        norms: of queries and keys.
        rope: the layer's.
        cos, sin: (T, pairs of all rotations of the model) float32.
    """
    library = loaded_library()
    assert library is not None
    qkv, (new, _, head_dim) = qkv.contiguous(), qkv.shape
    out = torch.empty(new, heads + kv_heads, head_dim, dtype=torch.bfloat16, device="cpu")
    call = Rotation(
        rows=new,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        threads=torch.get_num_threads(),
        turned=cos.shape[1],
        query=norm_struct(norms[0]),
        key=norm_struct(norms[1]),
        rope=rope_struct(rope),
        qkv=qkv.data_ptr(),
        cos=cos.data_ptr(),
        sin=sin.data_ptr(),
        out=out.data_ptr(),
    )
    library.rapid_rotate(ctypes.byref(call))
    return out


def recur(recurrence: NativeRecurrence, rows: Tensor, inputs: Tensor, state: Tensor, into: Tensor | None) -> Tensor:
    """Return what the heads of a recurrence give for rows of one text, (T, H_v, D_v) float32.

    Args:
        recurrence: its numbers.
        rows: (T, C + rates) float32; see `RecordedState`.
        inputs: (W - 1, C), what was convolved before them.
        state: (H_v, D_k, D_v).
        into: the same behind them; None: it is not wanted.
    """
    library = loaded_library()
    assert library is not None and all(each.is_contiguous() for each in (rows, inputs, state))
    out = torch.empty(len(rows), recurrence.value_heads, recurrence.value_dim, dtype=torch.float32, device="cpu")
    own = recurrence_struct(recurrence)
    call = Recurring(
        recurrence=ctypes.pointer(own),
        rows=len(rows),
        threads=torch.get_num_threads(),
        record=rows.data_ptr(),
        state=state.data_ptr(),
        inputs=inputs.data_ptr(),
        state_into=None if into is None else into.data_ptr(),
        out=out.data_ptr(),
    )
    if library.rapid_recur(ctypes.byref(call)):
        raise MemoryError("a recurrence found no memory for what it computes on the way")
    return out


def gate_heads(recurrence: NativeRecurrence, heads: Tensor, gates: Tensor) -> Tensor:
    """Return what heads give, (T, H_v, D_v) float32, with gates (T, H_v * D_v) bfloat16 and the norm, as the gates are.

    `heads` are changed.
    """
    library, gates = loaded_library(), gates.contiguous()
    assert library is not None and heads.is_contiguous()
    out, struct = torch.empty_like(gates), recurrence_struct(recurrence)
    addresses = ctypes.byref(struct), heads.data_ptr(), gates.data_ptr()
    library.rapid_gate_heads(*addresses, len(heads), torch.get_num_threads(), out.data_ptr())
    return out


def add_and_norm(x: Tensor, added: Tensor | None, norm: Norm | None, factor: float = 1.0) -> Tensor:
    """Add factor * added to x, (T, E) bfloat16, in place, and return it normalised, (T, E)."""
    library = loaded_library()
    assert library is not None and x.is_contiguous() and (added is None or added.is_contiguous())
    out = torch.empty_like(x)
    more = None if added is None else added.data_ptr()
    shape = (*x.shape, torch.get_num_threads())
    library.rapid_add_norm(x.data_ptr(), more, factor, ctypes.byref(norm_struct(norm)), *shape, out.data_ptr())
    return out


def activated(
    gate_up: Tensor, activation: Activation, gated: bool, quantile: float | None = None, xielu: Xielu | None = None
) -> Tensor:
    """Return activation(gate) * up, (T, I), of (T, 2 I) bfloat16, or activation(x) of (T, I) if it is not `gated`.

    `quantile`: only what of a gate's row is above that quantile is taken, less it; see `alternating.thinned`. `xielu`:
    the numbers of that activation.
    """
    library, gate_up = loaded_library(), gate_up.contiguous()
    assert library is not None
    rows, columns = gate_up.shape[0], gate_up.shape[1] // (2 if gated else 1)
    out = torch.empty(rows, columns, dtype=torch.bfloat16, device="cpu")
    act = act_struct(activation, xielu)
    sparse = quantile is not None, quantile or 0.0
    shape = rows, columns, ctypes.byref(act), gated
    library.rapid_gate(gate_up.data_ptr(), *shape, *sparse, torch.get_num_threads(), out.data_ptr())
    return out
