"""GLM 4.5 and 4.6, K-EXAONE, dots.llm1, MiniMax-M2, ERNIE 4.5, Solar Open, Hunyuan 3: experts by corrected scores."""

from __future__ import annotations

from typing import Any

from rapid_integrations.kernels.layers import Routing
from rapid_integrations.models.description import Decoder, Experts, NotDescribedError, Stack
from rapid_integrations.models.families.parts import (
    activation,
    attention,
    decoder,
    gated_mlp,
    head_norms,
    layer,
    rms_norm,
    rms_norm_of_all_heads,
    sliding,
)

_LEAST_SUM = 1e-9  # of the weights that a row's experts have; no softmax gives so little to those that are chosen


def describe(model: Any) -> Decoder:
    """Describe a model."""
    config, base = model.config, model.base_model
    name = type(model).__name__
    layers = []
    for index, each in enumerate(base.layers):
        window = sliding(config, index)
        # K-EXAONE rotates only the layers that have windows, if any layer has one.
        unrotated = name.startswith("Exaone") and config.sliding_window is not None and window is None
        own = attention(
            each.self_attn,
            window=window,
            norms=head_norms(each.self_attn, rms_norm_of_all_heads if name.startswith("MiniMax") else rms_norm),
            rotation=None if unrotated else 0,
            interleaved=name.startswith("Ernie"),
        )
        mlp = _experts(each.mlp, config) if hasattr(each.mlp, "experts") else gated_mlp(each.mlp, config)
        layers.append(layer(each, own, mlp))
    return decoder(model, layers, rms_norm(base.norm))


def _experts(module: Any, config: Any) -> Experts:
    router = module.gate
    if getattr(router, "norm_min", 0.0) > _LEAST_SUM:
        raise NotDescribedError(f"the weights of its experts are divided by at least {router.norm_min} (moe_norm_min)")
    statics = getattr(router, "moe_statics", None)  # of ERNIE, whose scores are a softmax
    holder = statics or (module if hasattr(module, "e_score_correction_bias") else router)
    shared = getattr(module, "shared_experts", None)
    return Experts(
        router=(router.weight, None),
        routing=Routing(
            taken=router.top_k,
            sigmoid=statics is None,
            normalised=bool(getattr(router, "norm_topk_prob", True)),
            scale=float(getattr(router, "routed_scaling_factor", getattr(router, "router_scaling_factor", 1.0))),
            groups=getattr(router, "num_group", 1),
            groups_taken=getattr(router, "topk_group", 1),
            correction=holder.e_score_correction_bias,
            shared=shared is not None,
        ),
        gate_up=Stack(module.experts, "gate_up_proj"),
        down=Stack(module.experts, "down_proj"),
        activation=activation(config.hidden_act),
        inner=module.experts.intermediate_dim,
        shared=None if shared is None else gated_mlp(shared, config),
    )


CLASSES = dict.fromkeys(
    (
        f"{name}ForCausalLM"
        for name in ("Glm4Moe", "ExaoneMoe", "Dots1", "MiniMaxM2", "Ernie4_5_Moe", "SolarOpen", "HYV3")
    ),
    describe,
)
