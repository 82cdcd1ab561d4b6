"""Mamba2 (Codestral Mamba), and what the descriptions of families with Mamba2 beside other parts are made of."""

from __future__ import annotations

from itertools import accumulate
from math import inf
from typing import Any

import torch

from rapid_integrations.kernels.layers import Norm
from rapid_integrations.models.description import Decoder, Inputs, Layer, NotDescribedError, Recurrence, RowsOf
from rapid_integrations.models.families.mamba import decoder_without_attention
from rapid_integrations.models.families.parts import rms_norm


def describe(model: Any) -> Decoder:
    """Describe a model of nothing but Mamba2."""
    layers = [
        Layer(mamba2(each.mixer, rms_norm(each.mixer.norm)), None, rms_norm(each.norm))
        for each in model.base_model.layers
    ]
    return decoder_without_attention(model, layers)


def mamba2(module: Any, norm: Norm | None) -> Recurrence:
    """Describe a Mamba2 with `in_proj`, `conv1d`, `A_log`, `dt_bias`, `D` and `out_proj`.

    One of a GGUF file has a module for steps, see `gguf.mamba2`.

    Raises:
        NotDescribedError: its steps have an upper limit, or its convolution has another activation than SiLU.
    """
    least, most = module.time_step_limit or (0.0, inf)
    if most != inf or module.activation not in ("silu", "swish"):
        raise NotDescribedError("its steps are limited, or its convolutions have another activation than SiLU")
    heads, groups, keys = module.num_heads, module.n_groups, module.n_groups * module.ssm_state_size
    inner = heads * module.head_dim
    # Its parts are gates, values, keys, queries and steps. Here it is queries, keys, values and gates, and steps apart.
    ends = list(accumulate((inner, inner, keys, keys, heads)))
    parts = torch.tensor_split(torch.arange(ends[-1], device="cpu"), ends[:-1])
    gates, values, key, query, steps = parts
    if hasattr(module, "in_proj_qkvz"):
        inputs: Inputs = (module.in_proj_qkvz,)
        rates: Inputs = (module.in_proj_dt,)
    else:
        inputs = (RowsOf(module.in_proj, torch.cat([query, key, values, gates])),)
        rates = (RowsOf(module.in_proj, steps),)
    return Recurrence(
        inputs=inputs,
        rates=rates,
        out=module.out_proj,
        key_heads=groups,
        value_heads=heads,
        key_dim=module.ssm_state_size,
        value_dim=module.head_dim,
        convolution=module.conv1d.weight,
        decay=module.A_log,
        bias=module.dt_bias,
        norm=norm,
        skip=module.D,
        convolution_bias=module.conv1d.bias,
        order=torch.cat([query, key, values]) - inner,  # it has no gates
        together=getattr(module.norm, "group_size", 0),
        least_rate=float(least),
    )


CLASSES = {"Mamba2ForCausalLM": describe}
