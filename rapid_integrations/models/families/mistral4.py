"""Mistral 4: multi-head latent attention whose queries grow with their position, and experts of a few groups."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rapid_integrations.models.description import Decoder, Growth
from rapid_integrations.models.families.grouped_experts import grouped_experts
from rapid_integrations.models.families.latent import latent_attention
from rapid_integrations.models.families.parts import decoder, gated_mlp, layer, rms_norm


def describe(model: Any) -> Decoder:
    """Describe a model."""
    config, base = model.config, model.base_model
    rope = config.rope_parameters
    growth = Growth(int(rope["original_max_position_embeddings"]), float(rope["llama_4_scaling_beta"]), ahead=0)
    layers = []
    for each in base.layers:
        mlp: Any = gated_mlp(each.mlp, config) if hasattr(each.mlp, "down_proj") else _experts(each.mlp, config)
        own = replace(latent_attention(each.self_attn, config.rope_interleave), growth=growth)
        layers.append(layer(each, own, mlp))
    return replace(decoder(model, layers, rms_norm(base.norm)), kv_heads=1, head_dim=config.qk_rope_head_dim)


def _experts(module: Any, config: Any) -> Any:
    described = grouped_experts(module, config)
    return replace(described, routing=replace(described.routing, group_best=2))


CLASSES = {"Mistral4ForCausalLM": describe}
