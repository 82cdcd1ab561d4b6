"""DeepSeek V2 to V3.2, GLM-4.7-Flash, GLM-5, MiniCPM3 and families like them: multi-head latent attention."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rapid_integrations.models.description import Decoder, Layer
from rapid_integrations.models.families.grouped_experts import grouped_experts
from rapid_integrations.models.families.latent import latent_attention, with_choice
from rapid_integrations.models.families.parts import decoder, gated_mlp, layer, rms_norm

_INDEXED = ("DeepseekV32", "GlmMoeDsa")  # an indexer chooses the keys that a row sees


def describe(model: Any) -> Decoder:
    """Describe a model."""
    config, base = model.config, model.base_model
    minicpm = type(base).__name__ == "MiniCPM3Model"
    interleaved = getattr(config, "rope_interleave", not minicpm)
    indexed = type(base).__name__.startswith(_INDEXED)
    layers: list[Layer] = []
    for each in base.layers:
        mlp = grouped_experts(each.mlp, config) if hasattr(each.mlp, "experts") else gated_mlp(each.mlp, config)
        behind = getattr(each.mlp, "post_mlp_layernorm", None)  # of A.X K1
        residual = getattr(each, "residual_scale", 1.0)  # of MiniCPM3
        attention = latent_attention(each.self_attn, interleaved)
        if indexed:
            attention = with_choice(attention, each.self_attn, layers)
        own = layer(each, attention, mlp, residual=residual)
        layers.append(own if behind is None else replace(own, after_mlp=rms_norm(behind)))
    described = replace(decoder(model, layers, rms_norm(base.norm)), kv_heads=1, head_dim=config.qk_rope_head_dim)
    scales = (config.scale_emb, config.dim_model_base / config.hidden_size) if minicpm else (1.0, 1.0)
    return replace(described, embedding_scale=float(scales[0]), logit_scale=scales[1])


_PREFIXES = ("AXK1", "DeepseekV2", "DeepseekV3", "Glm4MoeLite", "MiniCPM3", "Youtu", *_INDEXED)
CLASSES = dict.fromkeys((f"{prefix}ForCausalLM" for prefix in _PREFIXES), describe)
