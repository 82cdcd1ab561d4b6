"""Kernel: the activation of an MLP's gate, times the other half."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from rapid_integrations.kernels.cuda.launching import OPTIONS
from rapid_integrations.kernels.layers import ACTIVATIONS, Activation

_BLOCK = 1024
_SILU, _GELU_TANH, _GELU, _RELU_SQUARED, _CLIPPED_SWIGLU, _RELU, _ = map(tl.constexpr, range(len(ACTIVATIONS)))
_CLIP, _STEEPNESS = tl.constexpr(7.0), tl.constexpr(1.702)  # of GPT-OSS
_ROOT_2_BY_PI, _CUBIC, _ROOT_HALF = (
    tl.constexpr(0.7978845608028654),
    tl.constexpr(0.044715),
    tl.constexpr(0.7071067811865476),
)


@triton.jit
def _gate(gate_up, out, count, width, KIND: tl.constexpr, GATED: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    gate = tl.load(gate_up + row * width + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.full([BLOCK], 1.0, tl.float32)
    if GATED:
        up = tl.load(gate_up + row * width + count + at, mask=inside, other=0.0).to(tl.float32)
    if KIND == _SILU:
        gate = gate * tl.sigmoid(gate)
    elif KIND == _GELU_TANH:  # tanh(x) = 2 sigmoid(2 x) - 1
        inner = (gate + gate * gate * gate * _CUBIC) * _ROOT_2_BY_PI
        gate = gate * tl.sigmoid(2.0 * inner)
    elif KIND == _GELU:
        gate = 0.5 * gate * (1.0 + tl.erf(gate * _ROOT_HALF))
    elif KIND == _RELU_SQUARED:
        gate = tl.maximum(gate, 0.0)
        gate = gate * gate
    elif KIND == _RELU:
        gate = tl.maximum(gate, 0.0)
    else:
        gate = tl.minimum(gate, _CLIP)
        gate = gate * tl.sigmoid(gate * _STEEPNESS)
        up = tl.minimum(tl.maximum(up, -_CLIP), _CLIP) + 1.0
    tl.store(out + row * count + at, (gate * up).to(out.dtype.element_ty), mask=inside)


def gate(gate_up: Tensor, activation: Activation, gated: bool) -> Tensor:
    """Return activation(gate) * up, (R, I), of (R, 2 I), or activation(x) of (R, I) if it is not `gated`.

    "xielu" is not served: see `Decoder.beyond_gpus`.
    """
    assert activation != "xielu"
    rows, width = gate_up.shape
    count = width // 2 if gated else width
    out = gate_up.new_empty(rows, count)
    grid = rows, triton.cdiv(count, _BLOCK)
    kind = ACTIVATIONS.index(activation)
    _gate[grid](gate_up, out, count, width, KIND=kind, GATED=gated, BLOCK=_BLOCK, num_warps=4, **OPTIONS)
    return out
