"""Families with gated delta nets beside attentions: Qwen3-Next and Qwen3.5, dense and with experts."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import torch

from rapid_integrations.models.description import Attention, Decoder, Inputs, NotDescribedError, Recurrence, RowsOf
from rapid_integrations.models.families.mixtral import experts
from rapid_integrations.models.families.parts import decoder, gated_mlp, layer, rms_norm, rms_norm_plus_one


def describe(model: Any) -> Decoder:
    """Describe a model. One of a GGUF file has modules for parts of matrices, see `gguf.hybrids`."""
    config, base = model.config, model.base_model
    layers = []
    for each in base.layers:
        mlp = experts(each.mlp, config) if hasattr(each.mlp, "experts") else gated_mlp(each.mlp, config)
        mixer = _attention(each.self_attn) if hasattr(each, "self_attn") else _recurrence(each.linear_attn)
        layers.append(layer(each, mixer, mlp, rms_norm_plus_one))
    return decoder(model, layers, rms_norm_plus_one(base.norm))


def _attention(module: Any) -> Attention:
    queries: Any = module.q_proj
    gates: Any = getattr(module, "gate_proj", None)
    if gates is None:  # each head's query has its gate behind it
        heads = torch.arange(module.q_proj.out_features, device="cpu").view(-1, 2, module.head_dim)
        queries, gates = (RowsOf(module.q_proj, heads[:, part].flatten()) for part in (0, 1))
    return Attention(
        qkv=(queries, module.k_proj, module.v_proj, gates),
        out=module.o_proj,
        scale=module.scaling,
        query=rms_norm_plus_one(module.q_norm),
        key=rms_norm_plus_one(module.k_norm),
        gated=True,
    )


def _recurrence(module: Any) -> Recurrence:
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


CLASSES = dict.fromkeys(("Qwen3NextForCausalLM", "Qwen3_5ForCausalLM", "Qwen3_5MoeForCausalLM"), describe)
