"""GLM 4 (partly rotated heads in neighbouring pairs, norms behind attention and MLP), ERNIE 4.5 and Helium."""

from __future__ import annotations

from typing import Any

from rapid_integrations.models.description import Decoder, Layer
from rapid_integrations.models.families.parts import attention, decoder, gated_mlp, layer, rms_norm


def describe(model: Any) -> Decoder:
    """Describe GLM 4, of both generations, ERNIE 4.5 or Helium."""
    config, base = model.config, model.base_model
    layers = []
    for each in base.layers:
        own, mlp = attention(each.self_attn, interleaved=True), gated_mlp(each.mlp, config)
        if hasattr(each, "post_self_attn_layernorm"):
            layers.append(
                Layer(
                    attention=own,
                    mlp=mlp,
                    before_attention=rms_norm(each.input_layernorm),
                    after_attention=rms_norm(each.post_self_attn_layernorm),
                    before_mlp=rms_norm(each.post_attention_layernorm),
                    after_mlp=rms_norm(each.post_mlp_layernorm),
                )
            )
        else:
            layers.append(layer(each, own, mlp))
    return decoder(model, layers, rms_norm(base.norm))


CLASSES = dict.fromkeys(("GlmForCausalLM", "Glm4ForCausalLM", "Ernie4_5ForCausalLM", "HeliumForCausalLM"), describe)
