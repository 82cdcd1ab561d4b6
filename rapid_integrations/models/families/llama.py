"""Llama and families that differ from it in biases, norms of heads, windows, or layers without rotation."""

from __future__ import annotations

from typing import Any

from rapid_integrations.models.description import Decoder, Mlp
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
    config = model.config
    layers = [
        layer(
            each,
            attention(
                each.self_attn,
                window=_window(each.self_attn, config, index),
                norms=head_norms(each.self_attn),
                rotation=0 if getattr(each.self_attn, "use_rope", True) else None,
            ),
            gated_mlp(each.mlp, config) if hasattr(each.mlp, "gate_proj") else _arcee_mlp(each.mlp, config),
        )
        for index, each in enumerate(model.base_model.layers)
    ]
    return decoder(model, layers, rms_norm(model.base_model.norm))


def _arcee_mlp(module: Any, config: Any) -> Mlp:
    return Mlp((module.up_proj,), module.down_proj, activation(config.hidden_act), gated=False)


def _window(module: Any, config: Any, index: int) -> int | None:
    name = type(module).__name__
    if name == "MistralAttention":  # it reads its configuration in every layer; others ignore this key
        window: int | None = config.sliding_window
        return window
    if hasattr(module, "sliding_window"):
        own: int | None = module.sliding_window
        return own
    return None


CLASSES = {
    "ArceeForCausalLM": describe,
    "LlamaForCausalLM": describe,
    "MistralForCausalLM": describe,
    "MinistralForCausalLM": describe,
    "Qwen2ForCausalLM": describe,
    "Qwen3ForCausalLM": describe,
    "SeedOssForCausalLM": describe,
    "SmolLM3ForCausalLM": describe,
    "Skeleton": describe,  # of this package: see `skeleton.py`
}
