"""Kolibri 1: norms before and behind both parts, and experts chosen by what the router gives, not by scores."""

from __future__ import annotations

from typing import Any

from rapid_integrations.kernels.layers import Routing
from rapid_integrations.models.description import Decoder, Experts, Layer, Stack
from rapid_integrations.models.families.parts import (
    activation,
    attention,
    decoder,
    gated_mlp,
    head_norms,
    rms_norm,
    sliding,
)


def describe(model: Any) -> Decoder:
    """Describe a model."""
    config, base = model.config, model.base_model
    layers = []
    for index, each in enumerate(base.layers):
        window = sliding(config, index)
        rotated = window is not None or config.sliding_window is None
        layers.append(
            Layer(
                attention=attention(
                    each.self_attn,
                    window=window,
                    norms=head_norms(each.self_attn),
                    rotation=0 if rotated else None,
                ),
                mlp=_experts(each.mlp, config),
                before_attention=rms_norm(each.input_layernorm),
                after_attention=rms_norm(each.post_self_attn_layernorm),
                before_mlp=rms_norm(each.post_attention_layernorm),
                after_mlp=rms_norm(each.post_mlp_layernorm),
            )
        )
    return decoder(model, layers, rms_norm(base.norm))


def _experts(module: Any, config: Any) -> Experts:
    router = module.gate
    return Experts(
        router=(router.weight, None),
        routing=Routing(
            taken=router.top_k,
            sigmoid=True,
            normalised=router.norm_topk_prob,
            correction=router.e_score_correction_bias,
            by_outputs=True,
            shared=True,
        ),
        gate_up=Stack(module.experts, "gate_up_proj"),
        down=Stack(module.experts, "down_proj"),
        activation=activation(config.hidden_act),
        inner=module.experts.intermediate_dim,
        shared=gated_mlp(module.shared_experts, config),
    )


CLASSES = {"Kolibri1ForCausalLM": describe}
