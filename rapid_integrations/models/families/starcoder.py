"""StarCoder2 and StableLM: LayerNorm with biases; an MLP without a gate, or partly rotated heads."""

from __future__ import annotations

from typing import Any

from rapid_integrations.models.description import Decoder, Layer, Mlp, NotDescribedError
from rapid_integrations.models.families.parts import (
    activation,
    attention,
    decoder,
    gated_mlp,
    layer,
    layer_norm,
)


def describe(model: Any) -> Decoder:
    """Describe StarCoder2."""
    config, base = model.config, model.base_model
    layers = []
    for each in base.layers:
        mlp = Mlp((each.mlp.c_fc,), each.mlp.c_proj, activation(config.hidden_act), gated=False)
        layers.append(layer(each, attention(each.self_attn, window=config.sliding_window), mlp, layer_norm))
    return decoder(model, layers, layer_norm(base.norm))


def describe_stablelm(model: Any) -> Decoder:
    """Describe StableLM."""
    config, base = model.config, model.base_model
    if config.qk_layernorm:
        raise NotDescribedError("each head has a norm of its own in a module of its own (qk_layernorm)")
    layers = []
    for each in base.layers:
        norm, parallel = layer_norm(each.input_layernorm), bool(config.use_parallel_residual)
        layers.append(
            Layer(
                attention=attention(each.self_attn),
                mlp=gated_mlp(each.mlp, config),
                before_attention=norm,
                before_mlp=norm if parallel else layer_norm(each.post_attention_layernorm),
                parallel=parallel,
            )
        )
    return decoder(model, layers, layer_norm(base.norm))


CLASSES = {"Starcoder2ForCausalLM": describe, "StableLmForCausalLM": describe_stablelm}
