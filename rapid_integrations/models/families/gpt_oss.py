"""GPT-OSS: attention sinks, every second layer with a window, and experts with biases and a clipped gate."""

from __future__ import annotations

from typing import Any

from rapid_integrations.kernels.layers import AttentionKind, Routing
from rapid_integrations.models.description import Decoder, Experts, NotDescribedError, Stack
from rapid_integrations.models.families.parts import attention, decoder, layer, rms_norm, sliding
from rapid_integrations.models.stack_forms import gate_first, halves, interleaved, transposed


def describe(model: Any) -> Decoder:
    """Describe a model."""
    config, base = model.config, model.base_model
    if (config.swiglu_limit, config.swiglu_alpha) != (7.0, 1.702):
        raise NotDescribedError(f"its gate is clipped at {config.swiglu_limit}, steep by {config.swiglu_alpha}")
    layers = [
        layer(
            each,
            attention(
                each.self_attn,
                window=sliding(config, index),
                kind=AttentionKind(sinks=each.self_attn.sinks),
            ),
            _experts(each.mlp),
        )
        for index, each in enumerate(base.layers)
    ]
    return decoder(model, layers, rms_norm(base.norm))


def _experts(module: Any) -> Experts:
    router, experts = module.router, module.experts
    return Experts(
        router=(router.weight, router.bias),
        routing=Routing(taken=router.top_k),
        gate_up=Stack(experts, "gate_up_proj", "gate_up_proj_bias", gate_first, interleaved, halves),
        down=Stack(experts, "down_proj", "down_proj_bias", transposed, transposed),
        activation="clipped_swiglu",
        inner=experts.intermediate_size,
    )


CLASSES = {"GptOssForCausalLM": describe}
