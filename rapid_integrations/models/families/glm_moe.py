"""GLM 4.5 and 4.6 and families like it: experts chosen by sigmoids, with one that every row takes."""

from __future__ import annotations

from typing import Any

from rapid_integrations.kernels.layers import Routing
from rapid_integrations.models.description import Decoder, Experts, Stack
from rapid_integrations.models.families.parts import (
    activation,
    attention,
    decoder,
    gated_mlp,
    head_norms,
    layer,
    rms_norm,
)


def describe(model: Any) -> Decoder:
    """Describe a model."""
    config, base = model.config, model.base_model
    layers = [
        layer(
            each,
            attention(each.self_attn, norms=head_norms(each.self_attn)),
            _experts(each.mlp, config) if hasattr(each.mlp, "experts") else gated_mlp(each.mlp, config),
        )
        for each in base.layers
    ]
    return decoder(model, layers, rms_norm(base.norm))


def _experts(module: Any, config: Any) -> Experts:
    router = module.gate
    return Experts(
        router=(router.weight, None),
        routing=Routing(
            taken=router.top_k,
            sigmoid=True,
            normalised=bool(router.norm_topk_prob),
            scale=float(router.routed_scaling_factor),
            groups=router.num_group,
            groups_taken=router.topk_group,
            correction=router.e_score_correction_bias.float(),
            shared=True,
        ),
        gate_up=Stack(module.experts, "gate_up_proj"),
        down=Stack(module.experts, "down_proj"),
        activation=activation(config.hidden_act),
        inner=module.experts.intermediate_dim,
        shared=gated_mlp(module.shared_experts, config),
    )


CLASSES = {"Glm4MoeForCausalLM": describe}
