"""Granite 4: layers of Mamba2 beside a few that attend without positions, dense or with experts."""

from __future__ import annotations

from typing import Any

from rapid_integrations.models.description import Attention, Decoder, Recurrence
from rapid_integrations.models.families.mamba2 import mamba2
from rapid_integrations.models.families.mixtral import experts
from rapid_integrations.models.families.parts import attention, decoder, layer, rms_norm, shared_mlp


def describe(model: Any) -> Decoder:
    """Describe a model."""
    config, base = model.config, model.base_model
    layers = []
    for each in base.layers:
        mlp = shared_mlp(each.shared_mlp, config)
        beside = None if each.block_sparse_moe is None else experts(each.block_sparse_moe, config, each.shared_mlp)
        if each.self_attn is None:
            mixer: Attention | Recurrence = mamba2(each.mamba, rms_norm(each.mamba.norm))
        else:
            mixer = attention(each.self_attn, rotation=None if base.rotary_emb is None else 0)
        layers.append(layer(each, mixer, beside or mlp, residual=float(config.residual_multiplier)))
    return decoder(
        model,
        layers,
        rms_norm(base.norm),
        rotations=[] if base.rotary_emb is None else None,
        embedding_scale=float(config.embedding_multiplier),
        logit_scale=1 / config.logits_scaling,
    )


CLASSES = {"GraniteMoeHybridForCausalLM": describe}
