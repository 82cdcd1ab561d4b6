"""Phi-3, Phi-3.5, Phi-4 and Phi-4-mini: fused matrices, partly rotated heads, angles chosen by a text's capacity."""

from __future__ import annotations

from typing import Any

from rapid_integrations.models.description import Decoder
from rapid_integrations.models.families.parts import attention, decoder, gated_mlp, layer, rms_norm


def describe(model: Any) -> Decoder:
    """Describe a model."""
    config, base = model.config, model.base_model
    layers = [
        layer(each, attention(each.self_attn, window=config.sliding_window), gated_mlp(each.mlp, config))
        for each in base.layers
    ]
    return decoder(model, layers, rms_norm(base.norm))


CLASSES = {"Phi3ForCausalLM": describe}
