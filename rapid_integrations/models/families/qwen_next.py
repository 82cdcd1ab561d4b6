"""Families with gated delta nets beside attentions: Qwen3-Next and Qwen3.5, dense and with experts."""

from __future__ import annotations

from typing import Any

import torch

from rapid_integrations.models.description import Attention, Decoder, RowsOf
from rapid_integrations.models.families.delta_net import delta_net
from rapid_integrations.models.families.mixtral import experts
from rapid_integrations.models.families.parts import decoder, gated_mlp, layer, rms_norm_plus_one


def describe(model: Any) -> Decoder:
    """Describe a model. One of a GGUF file has modules for parts of matrices, see `gguf.hybrids`."""
    config, base = model.config, model.base_model
    layers = []
    for each in base.layers:
        mlp = experts(each.mlp, config) if hasattr(each.mlp, "experts") else gated_mlp(each.mlp, config)
        mixer = _attention(each.self_attn) if hasattr(each, "self_attn") else delta_net(each.linear_attn)
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


CLASSES = dict.fromkeys(("Qwen3NextForCausalLM", "Qwen3_5ForCausalLM", "Qwen3_5MoeForCausalLM"), describe)
