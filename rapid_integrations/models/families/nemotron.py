"""Nemotron 3 and 4, Minitron and Jais 2: LayerNorm with biases, and an MLP without a gate, of squares."""

from __future__ import annotations

from typing import Any

from rapid_integrations.kernels.layers import Norm
from rapid_integrations.models.description import Decoder, Mlp
from rapid_integrations.models.families.parts import activation, attention, decoder, layer, layer_norm


def describe(model: Any) -> Decoder:
    """Describe a model."""
    config, base = model.config, model.base_model
    norm = _layer_norm_plus_one if type(base).__name__ == "NemotronModel" else layer_norm
    layers = []
    for each in base.layers:
        mlp = Mlp((each.mlp.up_proj,), each.mlp.down_proj, activation(config.hidden_act), gated=False)
        layers.append(layer(each, attention(each.self_attn), mlp, norm))
    return decoder(model, layers, norm(base.norm))


def _layer_norm_plus_one(module: Any) -> Norm:
    """Describe a LayerNorm whose weights are stored less one."""
    return Norm(module.weight, module.eps, bias=module.bias, centred=True, offset=1.0)


CLASSES = dict.fromkeys(("NemotronForCausalLM", "Jais2ForCausalLM"), describe)
