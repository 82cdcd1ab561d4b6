"""nanochat: norms without weights, one of embedded rows; heads turned the other way, and normalised behind that."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rapid_integrations.kernels.layers import Norm
from rapid_integrations.models.description import Decoder, Layer, Mlp
from rapid_integrations.models.families.parts import activation, attention, decoder, rotation_of


def describe(model: Any) -> Decoder:
    """Describe a model."""
    config, base = model.config, model.base_model
    layers = []
    for each in base.layers:
        own, mlp = each.self_attn, each.mlp
        layers.append(
            Layer(
                attention=attention(own, norms=(_norm(own.q_norm), _norm(own.k_norm)), norm_behind=True),
                mlp=Mlp((mlp.fc1,), mlp.fc2, activation(config.hidden_act), gated=False),
                before_attention=_norm(each.input_layernorm),
                before_mlp=_norm(each.post_attention_layernorm),
            )
        )
    rotation = rotation_of(base.rotary_emb)
    whole = decoder(
        model,
        layers,
        _norm(base.norm),
        rotations=[replace(rotation, inverse_frequencies=-rotation.inverse_frequencies)],
        logit_softcap=config.final_logit_softcapping,
    )
    return replace(whole, embedding_norm=_norm(base.norm))


def _norm(module: Any) -> Norm:
    return Norm(None, module.eps)


CLASSES = {"NanoChatForCausalLM": describe}
