"""GPT-NeoX and Pythia: attention and MLP beside each other, each behind a LayerNorm of its own."""

from __future__ import annotations

from typing import Any

import torch

from rapid_integrations.models.description import Attention, Decoder, Layer, Mlp, RowsOf
from rapid_integrations.models.families.parts import activation, layer_norm, rotation_of


def describe(model: Any) -> Decoder:
    """Describe a model."""
    config, base = model.config, model.base_model
    layers = [
        Layer(
            attention=_attention(each.attention, config.num_attention_heads),
            mlp=Mlp((each.mlp.dense_h_to_4h,), each.mlp.dense_4h_to_h, activation(config.hidden_act), gated=False),
            before_attention=layer_norm(each.input_layernorm),
            before_mlp=layer_norm(each.post_attention_layernorm),
            parallel=bool(config.use_parallel_residual),
        )
        for each in base.layers
    ]
    return Decoder(
        heads=config.num_attention_heads,
        kv_heads=config.num_attention_heads,
        head_dim=config.hidden_size // config.num_attention_heads,
        embedding=base.embed_in,
        layers=layers,
        modules=list(base.layers),
        norm=layer_norm(base.final_layer_norm),
        head=model.lm_head,
        rotations=[rotation_of(base.rotary_emb)],
    )


def _attention(module: Any, heads: int) -> Attention:
    """Describe an attention whose matrix has the rows of a head together: its query, key and value.

    That of a GGUF file has all queries, then all keys and then all values.
    """
    if hasattr(module, "qkv_proj"):
        return Attention(qkv=(module.qkv_proj,), out=module.dense, scale=module.scaling)
    by_head = torch.arange(module.query_key_value.out_features, device="cpu").view(heads, 3, -1)
    rows = RowsOf(module.query_key_value, by_head.transpose(0, 1).flatten())
    return Attention(qkv=(rows,), out=module.dense, scale=module.scaling)


CLASSES = {"GPTNeoXForCausalLM": describe}
