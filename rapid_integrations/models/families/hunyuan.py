"""Hunyuan, dense or with experts: queries and keys are normalised behind the rotation."""

from __future__ import annotations

from typing import Any

from rapid_integrations.kernels.layers import Routing
from rapid_integrations.models.description import Decoder, Experts, NotDescribedError, Stack
from rapid_integrations.models.families.parts import activation, attention, decoder, gated_mlp, layer, rms_norm


def describe(model: Any) -> Decoder:
    """Describe a model."""
    config, base = model.config, model.base_model
    layers = []
    for each in base.layers:
        norms = rms_norm(each.self_attn.query_layernorm), rms_norm(each.self_attn.key_layernorm)
        own = attention(each.self_attn, norms=norms, norm_behind=True)
        mlp = _experts(each.mlp, config) if hasattr(each.mlp, "experts") else gated_mlp(each.mlp, config)
        layers.append(layer(each, own, mlp))
    return decoder(model, layers, rms_norm(base.norm))


def _experts(module: Any, config: Any) -> Experts:
    router = module.gate
    if router.num_experts != module.experts.num_experts:
        raise NotDescribedError("layers have several numbers of experts")
    return Experts(
        router=(router.wg.weight, None),
        routing=Routing(taken=router.top_k, shared=True),
        gate_up=Stack(module.experts, "gate_up_proj"),
        down=Stack(module.experts, "down_proj"),
        activation=activation(config.hidden_act),
        inner=module.experts.intermediate_dim,
        shared=gated_mlp(module.shared_mlp, config),
    )


CLASSES = dict.fromkeys(("HunYuanDenseV1ForCausalLM", "HunYuanMoEV1ForCausalLM"), describe)
