"""Phi-1 to Phi-2; Phi-3 to Phi-4-mini: fused matrices, partly rotated heads, angles chosen by a text's capacity."""

from __future__ import annotations

from typing import Any

from rapid_integrations.models.description import Decoder, Layer, Mlp
from rapid_integrations.models.families.parts import (
    activation,
    attention,
    decoder,
    gated_mlp,
    layer,
    layer_norm,
    rms_norm,
)


def describe(model: Any) -> Decoder:
    """Describe a model."""
    config, base = model.config, model.base_model
    layers = [
        layer(each, attention(each.self_attn, window=config.sliding_window), gated_mlp(each.mlp, config))
        for each in base.layers
    ]
    return decoder(model, layers, rms_norm(base.norm))


def describe_first(model: Any) -> Decoder:
    """Describe Phi-1, Phi-1.5 or Phi-2: LayerNorm, attention and MLP beside each other, biases everywhere."""
    config, base = model.config, model.base_model
    layers = []
    for each in base.layers:
        norm, own = layer_norm(each.input_layernorm), each.self_attn
        norms = (layer_norm(own.q_layernorm), layer_norm(own.k_layernorm)) if own.qk_layernorm else (None, None)
        layers.append(
            Layer(
                attention=attention(own, norms=norms, out=own.dense),
                mlp=Mlp((each.mlp.fc1,), each.mlp.fc2, activation(config.hidden_act), gated=False),
                before_attention=norm,
                before_mlp=norm,
                parallel=True,
            )
        )
    return decoder(model, layers, layer_norm(base.final_layernorm))


CLASSES = {"Phi3ForCausalLM": describe, "PhiForCausalLM": describe_first}
