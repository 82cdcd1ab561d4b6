"""Granite 3: factors on embeddings, attention, residual sums and logits."""

from __future__ import annotations

from typing import Any

from rapid_integrations.models.description import Decoder
from rapid_integrations.models.families.parts import attention, decoder, gated_mlp, layer, rms_norm


def describe(model: Any) -> Decoder:
    """Describe a model."""
    config, base = model.config, model.base_model
    layers = [
        layer(each, attention(each.self_attn), gated_mlp(each.mlp, config), residual=float(config.residual_multiplier))
        for each in base.layers
    ]
    return decoder(
        model,
        layers,
        rms_norm(base.norm),
        embedding_scale=float(config.embedding_multiplier),
        logit_scale=1 / config.logits_scaling,
    )


CLASSES = {"GraniteForCausalLM": describe}
