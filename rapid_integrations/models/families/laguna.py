"""Laguna: gates of heads that are softplus, layers with more heads than others, and experts by corrected scores."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rapid_integrations.kernels.layers import Routing
from rapid_integrations.models.description import Attention, Decoder, Experts, Stack
from rapid_integrations.models.families.gated_heads import with_gates
from rapid_integrations.models.families.parts import (
    activation,
    attention,
    decoder,
    gated_mlp,
    head_norms,
    layer,
    rms_norm,
    rotation_of,
)


def describe(model: Any) -> Decoder:
    """Describe a model."""
    config, base = model.config, model.base_model
    kinds = base.rotary_emb.layer_types
    layers = [
        layer(
            each,
            _attention(each.self_attn, config, kinds.index(config.layer_types[index])),
            _experts(each.mlp, config) if hasattr(each.mlp, "experts") else gated_mlp(each.mlp, config),
        )
        for index, each in enumerate(base.layers)
    ]
    rotations = [rotation_of(base.rotary_emb, kind) for kind in kinds]
    return decoder(model, layers, rms_norm(base.norm), rotations=rotations)


def _attention(module: Any, config: Any, rotation: int) -> Attention:
    own = attention(module, window=module.sliding_window, norms=head_norms(module), rotation=rotation)
    heads = None if module.num_heads == config.num_attention_heads else module.num_heads
    return with_gates(replace(own, heads=heads), module.g_proj, of_head=module.gate_per_head, softplus=True)


def _experts(module: Any, config: Any) -> Experts:
    router = module.gate
    return Experts(
        router=(router.weight, None),
        routing=Routing(
            taken=router.top_k,
            sigmoid=True,
            scale=float(module.routed_scaling_factor),
            correction=router.e_score_correction_bias,
            logit_softcap=router.router_logit_softcapping or None,
            shared=True,
        ),
        gate_up=Stack(module.experts, "gate_up_proj"),
        down=Stack(module.experts, "down_proj"),
        activation=activation(config.hidden_act),
        inner=module.experts.intermediate_dim,
        shared=gated_mlp(module.shared_experts, config),
    )


CLASSES = {"LagunaForCausalLM": describe}
