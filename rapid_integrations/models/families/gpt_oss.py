"""GPT-OSS: attention sinks, every second layer with a window, and experts with biases and a clipped gate."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rapid_integrations.kernels.layers import AttentionKind, Routing
from rapid_integrations.models.description import Decoder, Experts, NotDescribedError, Stack
from rapid_integrations.models.families.parts import attention, decoder, layer, rms_norm, sliding


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
        gate_up=Stack(experts, "gate_up_proj", "gate_up_proj_bias", _gate_first, _interleaved, _split),
        down=Stack(experts, "down_proj", "down_proj_bias", _transposed, _transposed),
        activation="clipped_swiglu",
        inner=experts.intermediate_size,
    )


def _transposed(weights: Tensor) -> Tensor:
    return weights.transpose(1, 2)


def _split(rows: Tensor) -> Tensor:
    """Put what belongs to the gate, every second row, before the rest."""
    return torch.cat([rows[:, ::2], rows[:, 1::2]], dim=1)


def _gate_first(weights: Tensor) -> Tensor:
    return _split(weights.transpose(1, 2))


def _interleaved(weights: Tensor) -> Tensor:
    """Undo `_gate_first`."""
    gate, up = weights.chunk(2, dim=1)
    return torch.stack([gate, up], dim=2).flatten(1, 2).transpose(1, 2)


CLASSES = {"GptOssForCausalLM": describe}
