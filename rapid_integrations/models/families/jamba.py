"""Jamba: layers of Mamba beside a few that attend without positions, each with an MLP or experts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rapid_integrations.models.description import Decoder, Experts, Layer, Mlp
from rapid_integrations.models.families.mamba import mamba
from rapid_integrations.models.families.mixtral import experts
from rapid_integrations.models.families.parts import attention, decoder, gated_mlp, rms_norm


def describe(model: Any) -> Decoder:
    """Describe a model."""
    config, base = model.config, model.base_model
    layers = []
    for each in base.layers:
        if hasattr(each, "self_attn"):
            mixer: Any = attention(each.self_attn, rotation=None)
        else:
            own = each.mamba
            mixer = mamba(own, (rms_norm(own.dt_layernorm), rms_norm(own.b_layernorm), rms_norm(own.c_layernorm)))
        mlp = _mixed(each.feed_forward, config)
        layers.append(Layer(mixer, mlp, rms_norm(each.input_layernorm), rms_norm(each.pre_ff_layernorm)))
    return decoder(model, layers, rms_norm(base.final_layernorm), rotations=[])


def _mixed(module: Any, config: Any) -> Mlp | Experts:
    if not hasattr(module, "experts"):
        return gated_mlp(module, config)
    described = experts(module, config)
    return replace(described, routing=replace(described.routing, normalised=False))


CLASSES = {"JambaForCausalLM": describe}
