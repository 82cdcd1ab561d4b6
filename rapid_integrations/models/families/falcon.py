"""Falcon 7B, 40B and 180B: attention and MLP beside each other or not, and few heads of keys for many of queries."""

from __future__ import annotations

from typing import Any

import torch

from rapid_integrations.models.description import Attention, Decoder, Layer, Mlp, NotDescribedError, RowsOf
from rapid_integrations.models.families.parts import activation, layer_norm, rotation_of


def describe(model: Any) -> Decoder:
    """Describe a model.

    Raises:
        NotDescribedError: it has no rotations but ALiBi.
    """
    config, base = model.config, model.base_model
    if config.alibi:
        raise NotDescribedError("it has no rotations but ALiBi, a bias that grows with the distance")
    newer = config.new_decoder_architecture
    apart = newer and config.num_ln_in_parallel_attn == 2  # norms of attention and MLP
    layers = []
    for each in base.h:
        before = layer_norm(each.ln_attn if apart else each.input_layernorm)
        before_mlp = before
        if apart:
            before_mlp = layer_norm(each.ln_mlp)
        elif not config.parallel_attn:
            before_mlp = layer_norm(each.post_attention_layernorm)
        own = each.mlp
        mlp = Mlp((own.dense_h_to_4h,), own.dense_4h_to_h, activation(config.activation), gated=False)
        parallel = bool(newer or config.parallel_attn)
        layers.append(Layer(_attention(each.self_attention), mlp, before, before_mlp, parallel=parallel))
    first = base.h[0].self_attention
    return Decoder(
        heads=config.num_attention_heads,
        kv_heads=first.num_kv_heads,
        head_dim=first.head_dim,
        embedding=base.word_embeddings,
        layers=layers,
        modules=list(base.h),
        norm=layer_norm(base.ln_f),
        head=model.lm_head,
        rotations=[rotation_of(base.rotary_emb)],
    )


def _attention(module: Any) -> Attention:
    """Describe an attention whose matrix has for each head of keys its queries, its key and its value."""
    served = module.num_heads // module.num_kv_heads
    whole = module.query_key_value
    rows = torch.arange(whole.out_features, device="cpu").view(module.num_kv_heads, served + 2, module.head_dim)
    parts = [rows[:, :served], rows[:, served], rows[:, served + 1]]
    in_order = RowsOf(whole, torch.cat([part.flatten() for part in parts]))
    return Attention((in_order,), module.dense, module.inv_norm_factor)


CLASSES = {"FalconForCausalLM": describe}
