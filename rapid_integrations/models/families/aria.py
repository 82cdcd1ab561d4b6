"""The text part of Aria: experts whose matrices lie by columns, with shared ones beside them."""

from __future__ import annotations

from typing import Any

from rapid_integrations.kernels.layers import Routing
from rapid_integrations.models.description import Decoder, Experts, NotDescribedError, Stack
from rapid_integrations.models.families.parts import attention, decoder, gated_mlp, layer, rms_norm
from rapid_integrations.models.stack_forms import transposed


def describe(model: Any) -> Decoder:
    """Describe a model."""
    config, base = model.config, model.base_model
    layers = [layer(each, attention(each.self_attn), _experts(each.mlp, config)) for each in base.layers]
    return decoder(model, layers, rms_norm(base.norm))


def _experts(module: Any, config: Any) -> Experts:
    if config.hidden_act not in ("silu", "swish"):
        raise NotDescribedError(f"its shared experts have the activation {config.hidden_act}, and the others SiLU")
    return Experts(
        router=(module.router.weight, None),
        routing=Routing(taken=module.router.top_k, by_outputs=True, shared=True),
        gate_up=Stack(module.experts, "gate_up_proj", taken=transposed, given=transposed),
        down=Stack(module.experts, "down_proj", taken=transposed, given=transposed),
        activation="silu",
        inner=module.experts.intermediate_dim,
        shared=gated_mlp(module.shared_experts, config),
    )


CLASSES = {"AriaTextForCausalLM": describe}
