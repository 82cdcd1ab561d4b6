"""Apertus: norms of heads, and an MLP without a gate whose activation has learned factors (xIELU)."""

from __future__ import annotations

from typing import Any

from rapid_integrations.models.description import Decoder, Layer, LearnedXielu, Mlp
from rapid_integrations.models.families.parts import activation, attention, decoder, head_norms, rms_norm


def describe(model: Any) -> Decoder:
    """Describe a model."""
    base = model.base_model
    layers = [
        Layer(
            attention=attention(each.self_attn, norms=head_norms(each.self_attn)),
            mlp=_mlp(each.mlp, model.config),
            before_attention=rms_norm(each.attention_layernorm),
            before_mlp=rms_norm(each.feedforward_layernorm),
        )
        for each in base.layers
    ]
    return decoder(model, layers, rms_norm(base.norm))


def _mlp(module: Any, config: Any) -> Mlp:
    if config.hidden_act != "xielu":
        return Mlp((module.up_proj,), module.down_proj, activation(config.hidden_act), gated=False)
    own = module.act_fn
    xielu = LearnedXielu(own.alpha_p, own.alpha_n, own.beta, own.eps)
    return Mlp((module.up_proj,), module.down_proj, "xielu", gated=False, xielu=xielu)


CLASSES = dict.fromkeys(("ApertusForCausalLM", "Apertus1p5TextForCausalLM"), describe)
