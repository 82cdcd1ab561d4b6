"""Granite 3 and HyperCLOVA X: factors on embeddings, attention, residual sums and logits."""

from __future__ import annotations

from dataclasses import replace
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


def describe_clova(model: Any) -> Decoder:
    """Describe HyperCLOVA X, which multiplies logits by its factor, and may have norms behind attention and MLP."""
    config, base = model.config, model.base_model
    layers = []
    for each in base.layers:
        own = layer(
            each, attention(each.self_attn), gated_mlp(each.mlp, config), residual=float(config.residual_multiplier)
        )
        if config.use_post_norm:
            own = replace(own, after_attention=rms_norm(each.post_norm1), after_mlp=rms_norm(each.post_norm2))
        layers.append(own)
    return decoder(
        model,
        layers,
        rms_norm(base.norm),
        embedding_scale=float(config.embedding_multiplier),
        logit_scale=float(config.logits_scaling),
    )


CLASSES = {"GraniteForCausalLM": describe, "HyperCLOVAXForCausalLM": describe_clova}
