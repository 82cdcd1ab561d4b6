"""Granite with windows, dense or with experts: sinks of scores, and angles of their own or none in each layer."""

from __future__ import annotations

from typing import Any

from rapid_integrations.kernels.layers import AttentionKind
from rapid_integrations.models.description import Decoder
from rapid_integrations.models.families.mixtral import experts
from rapid_integrations.models.families.parts import (
    attention,
    decoder,
    gated_mlp,
    layer,
    rms_norm,
    rotation_of,
    sliding,
)


def describe(model: Any) -> Decoder:
    """Describe a model."""
    config, base = model.config, model.base_model
    thetas = sorted({theta for theta in config.layer_rope_theta if theta})
    layers = []
    for index, (each, theta) in enumerate(zip(base.layers, config.layer_rope_theta, strict=True)):
        own = attention(
            each.self_attn,
            window=sliding(config, index),
            kind=AttentionKind(sinks=each.self_attn.sinks),
            rotation=thetas.index(theta) if theta else None,
        )
        if hasattr(each, "block_sparse_moe"):
            mlp: Any = experts(each.block_sparse_moe, config, each.shared_mlp)
        else:
            mlp = gated_mlp(each.mlp, config)
        layers.append(layer(each, own, mlp, residual=float(config.residual_multiplier)))
    return decoder(
        model,
        layers,
        rms_norm(base.norm),
        rotations=[rotation_of(each) for each in base.rotary_embs],
        embedding_scale=float(config.embedding_multiplier),
        logit_scale=1 / config.logits_scaling,
    )


CLASSES = dict.fromkeys(("GraniteSWAForCausalLM", "GraniteMoeSWAForCausalLM"), describe)
