"""GPT-BigCode (StarCoder 1, SantaCoder): GPT-2 with one head of keys for all of queries, or with one for each."""

from __future__ import annotations

from typing import Any

import torch

from rapid_integrations.models.description import (
    Attention,
    Decoder,
    Inputs,
    Layer,
    Mlp,
    NotDescribedError,
    Positions,
    RowsOf,
)
from rapid_integrations.models.families.learned_positions import decoder_with_positions
from rapid_integrations.models.families.parts import activation, layer_norm


def describe(model: Any) -> Decoder:
    """Describe a model."""
    config, base = model.config, model.base_model
    if config.add_cross_attention:
        raise NotDescribedError("it attends to an encoder's states, too (add_cross_attention)")
    act = activation(config.activation_function)
    layers = [
        Layer(
            attention=_attention(each.attn),
            mlp=Mlp((each.mlp.c_fc,), each.mlp.c_proj, act, gated=False),
            before_attention=layer_norm(each.ln_1),
            before_mlp=layer_norm(each.ln_2),
        )
        for each in base.h
    ]
    places = Positions(base.wpe)
    kv_heads = base.h[0].attn.kv_heads
    return decoder_with_positions(model, layers, base.h, layer_norm(base.ln_f), base.wte, places, kv_heads)


def _attention(module: Any) -> Attention:
    qkv: Inputs = (module.c_attn,)
    if not module.multi_query:  # a head's query, key and value lie together
        by_head = torch.arange(module.c_attn.out_features, device="cpu").view(module.num_heads, 3, -1)
        qkv = (RowsOf(module.c_attn, by_head.transpose(0, 1).flatten()),)
    return Attention(qkv, module.c_proj, module.scaling, rotation=None)


CLASSES = {"GPTBigCodeForCausalLM": describe}
