"""Granite 4: layers of Mamba2 beside a few that attend without positions, dense or with experts."""

from __future__ import annotations

from itertools import accumulate
from math import inf
from typing import Any

import torch

from rapid_integrations.models.description import Decoder, Inputs, NotDescribedError, Recurrence, RowsOf
from rapid_integrations.models.families.mixtral import experts, shared_mlp
from rapid_integrations.models.families.parts import attention, decoder, layer, rms_norm


def describe(model: Any) -> Decoder:
    """Describe a model."""
    config, base = model.config, model.base_model
    layers = []
    for each in base.layers:
        mlp = shared_mlp(each.shared_mlp, config)
        beside = None if each.block_sparse_moe is None else experts(each.block_sparse_moe, config, each.shared_mlp)
        rotation = None if base.rotary_emb is None else 0
        mixer = mamba2(each.mamba) if each.self_attn is None else attention(each.self_attn, rotation=rotation)
        layers.append(layer(each, mixer, beside or mlp, residual=float(config.residual_multiplier)))
    return decoder(
        model,
        layers,
        rms_norm(base.norm),
        rotations=[] if base.rotary_emb is None else None,
        embedding_scale=float(config.embedding_multiplier),
        logit_scale=1 / config.logits_scaling,
    )


def mamba2(module: Any) -> Recurrence:
    """Describe a Mamba2 as several families have it. One of a GGUF file has a module for steps, see `gguf.mamba2`.

    Raises:
        NotDescribedError: its steps are limited, or its convolution has another activation than SiLU.
    """
    if tuple(module.time_step_limit) != (0.0, inf) or module.activation not in ("silu", "swish"):
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
        norm=rms_norm(module.norm),
        skip=module.D,
        convolution_bias=module.conv1d.bias,
        order=torch.cat([query, key, values]) - inner,  # it has no gates
        together=module.norm.group_size,
    )


CLASSES = {"GraniteMoeHybridForCausalLM": describe}
