"""Hunyuan's dense models: queries and keys are normalised behind the rotation."""

from __future__ import annotations

from typing import Any

from rapid_integrations.models.description import Decoder
from rapid_integrations.models.families.parts import attention, decoder, gated_mlp, layer, rms_norm


def describe(model: Any) -> Decoder:
    """Describe a model."""
    config, base = model.config, model.base_model
    layers = []
    for each in base.layers:
        norms = rms_norm(each.self_attn.query_layernorm), rms_norm(each.self_attn.key_layernorm)
        own = attention(each.self_attn, norms=norms, norm_behind=True)
        layers.append(layer(each, own, gated_mlp(each.mlp, config)))
    return decoder(model, layers, rms_norm(base.norm))


CLASSES = {"HunYuanDenseV1ForCausalLM": describe}
