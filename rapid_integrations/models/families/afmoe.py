"""AFMoE (Arcee Trinity): gates of heads, norms before and behind both parts, and experts chosen by corrected scores."""

from __future__ import annotations

from typing import Any

from rapid_integrations.kernels.layers import Routing
from rapid_integrations.models.description import Attention, Decoder, Experts, Layer, Stack
from rapid_integrations.models.families.parts import activation, decoder, gated_mlp, rms_norm, sliding


def describe(model: Any) -> Decoder:
    """Describe a model."""
    config, base = model.config, model.base_model
    layers = [
        Layer(
            attention=_attention(each.self_attn, sliding(config, index)),
            mlp=_experts(each.mlp, config) if each.moe_enabled else gated_mlp(each.mlp, config),
            before_attention=rms_norm(each.input_layernorm),
            after_attention=rms_norm(each.post_attention_layernorm),
            before_mlp=rms_norm(each.pre_mlp_layernorm),
            after_mlp=rms_norm(each.post_mlp_layernorm),
        )
        for index, each in enumerate(base.layers)
    ]
    scale = float(config.hidden_size**0.5) if config.mup_enabled else 1.0
    return decoder(model, layers, rms_norm(base.norm), embedding_scale=scale)


def _attention(module: Any, window: int | None) -> Attention:
    return Attention(
        qkv=(module.q_proj, module.k_proj, module.v_proj, module.gate_proj),
        out=module.o_proj,
        scale=module.scaling,
        window=window,
        query=rms_norm(module.q_norm),
        key=rms_norm(module.k_norm),
        rotation=0 if module.is_local_attention else None,
        gated=True,
    )


def _experts(module: Any, config: Any) -> Experts:
    router = module.router
    return Experts(
        router=(router.gate.weight, None),
        routing=Routing(
            taken=router.top_k,
            sigmoid=True,
            scale=float(router.route_scale),
            correction=module.expert_bias,
            shared=True,
        ),
        gate_up=Stack(module.experts, "gate_up_proj"),
        down=Stack(module.experts, "down_proj"),
        activation=activation(config.hidden_act),
        inner=module.experts.intermediate_dim,
        shared=gated_mlp(module.shared_experts, config),
    )


CLASSES = {"AfmoeForCausalLM": describe}
