"""Llama and families that differ in biases, norms of heads, windows, layers without rotation, or growing queries."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rapid_integrations.models.description import Attention, Decoder, Growth, Mlp
from rapid_integrations.models.families.parts import (
    activation,
    attention,
    decoder,
    gated_mlp,
    head_norms,
    layer,
    rms_norm,
    sliding,
)


def describe(model: Any) -> Decoder:
    """Describe a model."""
    config = model.config
    layers = [
        layer(
            each,
            _attention(each.self_attn, config, index),
            gated_mlp(each.mlp, config) if hasattr(each.mlp, "gate_proj") else _arcee_mlp(each.mlp, config),
        )
        for index, each in enumerate(model.base_model.layers)
    ]
    return decoder(model, layers, rms_norm(model.base_model.norm))


def _attention(module: Any, config: Any, index: int) -> Attention:
    own = attention(
        module,
        window=_window(module, config, index),
        norms=head_norms(module),
        rotation=0 if getattr(module, "use_rope", True) else None,
    )
    if type(module).__name__ != "Ministral3Attention":
        return own
    rope = config.rope_parameters
    scale, every = float(rope["llama_4_scaling_beta"]), int(rope["original_max_position_embeddings"])
    return replace(own, growth=Growth(every, scale, ahead=0))


def _arcee_mlp(module: Any, config: Any) -> Mlp:
    return Mlp((module.up_proj,), module.down_proj, activation(config.hidden_act), gated=False)


def _window(module: Any, config: Any, index: int) -> int | None:
    name = type(module).__name__
    if name == "CwmAttention":  # only its masks know
        return sliding(config, index)
    if name in ("MistralAttention", "Ministral3Attention"):  # they read their configuration in every layer
        window: int | None = config.sliding_window
        return window
    if hasattr(module, "sliding_window"):
        own: int | None = module.sliding_window
        return own
    return None


CLASSES = {
    "ArceeForCausalLM": describe,
    "CwmForCausalLM": describe,
    "LlamaForCausalLM": describe,
    "MistralForCausalLM": describe,
    "MinistralForCausalLM": describe,
    "Ministral3ForCausalLM": describe,
    "Qwen2ForCausalLM": describe,
    "Qwen3ForCausalLM": describe,
    "SeedOssForCausalLM": describe,
    "SmolLM3ForCausalLM": describe,
    "Skeleton": describe,  # of this package: see `skeleton.py`
}
