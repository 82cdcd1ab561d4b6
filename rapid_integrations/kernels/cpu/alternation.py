"""Streams of states where a prompt's layers guess and correct them; see alternation.cpp."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from rapid_integrations.kernels.cpu.interface import Alternating
from rapid_integrations.kernels.cpu.library import loaded_library
from rapid_integrations.kernels.cpu.native_layers import NativeAlternation
from rapid_integrations.kernels.cpu.structs import alternation_struct


def predicted(own: NativeAlternation, active: int, streams: Tensor) -> Tensor:
    """Return what a layer guesses of streams (n, T, E) bfloat16, of which it computes the one number `active`."""
    library = loaded_library()
    assert library is not None
    struct, out = alternation_struct(own), torch.empty_like(streams)
    library.rapid_predict(ctypes.byref(_call(struct, active, streams, out)))
    return out


def corrected(own: NativeAlternation, active: int, guesses: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the streams behind a layer that has computed the active one, and what its own input meets.

    Args:
        own: the layer's numbers.
        active: number of the stream.
        guesses: (n, T, E) bfloat16.
        x: what the layer computed, (T, E) bfloat16.

    Returns:
        the streams (n, T, E), and the active one with the layer's factors, (T, E).
    """
    library = loaded_library()
    assert library is not None and x.is_contiguous()
    struct, out, scaled = alternation_struct(own), torch.empty_like(guesses), torch.empty_like(x)
    call = _call(struct, active, guesses, out)
    call.computed, call.scaled = x.data_ptr(), scaled.data_ptr()
    library.rapid_correct(ctypes.byref(call))
    return out, scaled


def _call(struct: object, active: int, streams: Tensor, out: Tensor) -> Alternating:
    assert streams.is_contiguous()
    _, rows, columns = streams.shape
    return Alternating(
        alternation=ctypes.pointer(struct),
        rows=rows,
        columns=columns,
        threads=torch.get_num_threads(),
        active=active,
        streams=streams.data_ptr(),
        out=out.data_ptr(),
    )
