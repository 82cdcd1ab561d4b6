"""What an MLP or an expert does to its gate, by PyTorch's operators."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import gelu, relu, silu

from rapid_integrations.kernels.layers import Activation, Xielu

_CLIP, _STEEPNESS = 7.0, 1.702  # of GPT-OSS


def activate(gate_up: Tensor, activation: Activation, gated: bool, xielu: Xielu | None = None) -> Tensor:
    """Return activation(gate) * up, (T, I), of (T, 2 I), or activation(x) of (T, I) if it is not `gated`.

    `xielu`: the numbers of an activation of that name.
    """
    gate, up = gate_up.chunk(2, dim=-1) if gated else (gate_up, None)
    if activation == "clipped_swiglu":
        assert up is not None
        gate, up = gate.clamp(max=_CLIP), up.clamp(-_CLIP, _CLIP) + 1
        return gate * torch.sigmoid(_STEEPNESS * gate) * up
    if xielu is not None:
        below = (torch.expm1(gate.clamp(max=xielu.least)) - gate) * xielu.negative
        out = torch.where(gate > 0, xielu.positive * gate * gate, below) + xielu.slope * gate
    elif activation == "silu":
        out = silu(gate)
    elif activation in ("relu", "relu_squared"):
        out = relu(gate) if activation == "relu" else relu(gate).square()
    else:
        out = gelu(gate, approximate="tanh" if activation == "gelu_tanh" else "none")
    return out if up is None else out * up
