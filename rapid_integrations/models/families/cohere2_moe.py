"""Cohere's Command A+: attention and experts beside each other, of which the sum with the shared expert is halved."""

from __future__ import annotations

from typing import Any

from rapid_integrations.kernels.layers import Norm, Routing
from rapid_integrations.models.description import Decoder, Experts, Layer, Stack
from rapid_integrations.models.families.parts import activation, attention, decoder, gated_mlp, rms_norm


def describe(model: Any) -> Decoder:
    """Describe a model."""
    config, base = model.config, model.base_model
    layers = []
    for each in base.layers:
        own, norm = each.self_attn, _norm(each.input_layernorm, config)
        # Only layers with windows are rotated, and dense ones if they come first.
        rotation = 0 if own.sliding_window is not None or own.force_rope else None
        mixer = attention(own, window=own.sliding_window, rotation=rotation, interleaved=True)
        mlp: Any = _experts(each.mlp, config) if hasattr(each.mlp, "experts") else gated_mlp(each.mlp, config)
        layers.append(Layer(mixer, mlp, before_attention=norm, before_mlp=norm, parallel=True))
    return decoder(model, layers, _norm(base.norm, config), logit_scale=float(config.logit_scale))


def _norm(module: Any, config: Any) -> Norm:
    if config.rms_norm_eps is not None:
        return rms_norm(module)
    return Norm(module.weight, module.variance_epsilon, centred=True)


def _experts(module: Any, config: Any) -> Experts:
    router, shared = module.gate, getattr(module, "shared_experts", None)
    sigmoid = router.expert_selection_fn == "sigmoid"
    halved = shared is not None and module.shared_expert_combination_strategy == "average"
    share = 0.5 if halved else 1.0
    return Experts(
        router=(router.weight, None),
        routing=Routing(
            taken=router.top_k,
            sigmoid=sigmoid,
            normalised=not sigmoid or router.norm_topk_prob,  # a softmax of those that were taken
            by_outputs=True,
            scale=share,
            shared=shared is not None,
            shared_scale=share,
        ),
        gate_up=Stack(module.experts, "gate_up_proj"),
        down=Stack(module.experts, "down_proj"),
        activation=activation(config.hidden_act),
        inner=module.experts.intermediate_dim,
        shared=None if shared is None else gated_mlp(shared, config),
    )


CLASSES = {"Cohere2MoeForCausalLM": describe}
