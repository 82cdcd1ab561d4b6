"""What the descriptions of families with gated delta nets are made of: Qwen3-Next, Qwen3.5 and Lara-Mini."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import torch

from rapid_integrations.models.description import Inputs, NotDescribedError, Recurrence, RowsOf
from rapid_integrations.models.families.parts import rms_norm


def delta_net(module: Any) -> Recurrence:
    """Describe a gated delta net.

    Raises:
        NotDescribedError: its convolutions are others.
    """
    if module.activation not in ("silu", "swish") or module.conv1d.bias is not None:
        raise NotDescribedError("its convolutions have another activation than SiLU, or a bias")
    if hasattr(module, "in_proj_qkvz"):  # all numbers of a key head lie together
        served = module.num_v_heads // module.num_k_heads
        key, value = module.head_k_dim, served * module.head_v_dim
        inputs: Inputs = (_by_part(module.in_proj_qkvz, module.num_k_heads, (key, key, value, value)),)
        rates: Inputs = (_by_part(module.in_proj_ba, module.num_k_heads, (served, served)),)
    else:
        inputs = module.in_proj_qkv, module.in_proj_z
        rates = module.in_proj_b, module.in_proj_a
    return Recurrence(
        inputs=inputs,
        rates=rates,
        out=module.out_proj,
        key_heads=module.num_k_heads,
        value_heads=module.num_v_heads,
        key_dim=module.head_k_dim,
        value_dim=module.head_v_dim,
        convolution=module.conv1d.weight,
        decay=module.A_log,
        bias=module.dt_bias,
        norm=rms_norm(module.norm),
        tiled=getattr(module, "tiled", False),
    )


def _by_part(linear: Any, heads: int, widths: tuple[int, ...]) -> RowsOf:
    """Return the rows of a matrix that has parts of these widths for each head, all heads of a part together."""
    by_head = torch.arange(linear.out_features, device="cpu").view(heads, -1)
    ends = list(accumulate(widths))
    return RowsOf(linear, torch.cat([part.flatten() for part in torch.tensor_split(by_head, ends[:-1], dim=1)]))
