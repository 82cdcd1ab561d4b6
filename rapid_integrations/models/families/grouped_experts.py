"""What the descriptions of families are made of whose rows take the experts of a few groups."""

from __future__ import annotations

from typing import Any

from rapid_integrations.kernels.layers import Routing
from rapid_integrations.models.description import Experts, Stack
from rapid_integrations.models.families.parts import activation, gated_mlp


def grouped_experts(module: Any, config: Any) -> Experts:
    """Describe experts of which a row takes those of a few groups."""
    router = module.gate
    correction = getattr(router, "e_score_correction_bias", None)  # DeepSeek V2 has none, and no sigmoids
    shared = getattr(module, "shared_experts", None)
    grouped = getattr(router, "topk_method", "noaux_tc") != "greedy"
    return Experts(
        router=(router.weight, None),
        routing=Routing(
            taken=router.top_k,
            sigmoid=correction is not None,
            normalised=bool(getattr(router, "norm_topk_prob", False)),
            scale=float(router.routed_scaling_factor),
            groups=router.num_group if grouped else 1,
            groups_taken=router.topk_group if grouped else 1,
            group_best=1 if correction is None else 2,
            correction=None if correction is None else correction.float(),
            shared=shared is not None,
        ),
        gate_up=Stack(module.experts, "gate_up_proj"),
        down=Stack(module.experts, "down_proj"),
        activation=activation(config.hidden_act),
        inner=module.experts.intermediate_dim,
        shared=None if shared is None else gated_mlp(shared, config),
    )
