"""Bamba: layers of Mamba2 beside a few that attend and rotate half of a head's numbers."""

from __future__ import annotations

from typing import Any

from rapid_integrations.models.description import Decoder, Layer
from rapid_integrations.models.families.mamba2 import mamba2
from rapid_integrations.models.families.parts import attention, decoder, gated_mlp, rms_norm


def describe(model: Any) -> Decoder:
    """Describe a model."""
    config, base = model.config, model.base_model
    layers = [
        Layer(
            attention(each.self_attn) if hasattr(each, "self_attn") else mamba2(each.mamba, rms_norm(each.mamba.norm)),
            gated_mlp(each.feed_forward, config),
            rms_norm(each.input_layernorm),
            rms_norm(each.pre_ff_layernorm),
        )
        for each in base.layers
    ]
    return decoder(model, layers, rms_norm(base.final_layernorm))


CLASSES = {"BambaForCausalLM": describe}
