"""Lara-Mini: gated delta nets beside attentions, of which those with windows are rotated, each with experts."""

from __future__ import annotations

from typing import Any

from rapid_integrations.models.description import Decoder
from rapid_integrations.models.families.delta_net import delta_net
from rapid_integrations.models.families.mixtral import experts
from rapid_integrations.models.families.parts import attention, decoder, head_norms, layer, rms_norm


def describe(model: Any) -> Decoder:
    """Describe a model."""
    config, base = model.config, model.base_model
    layers = []
    for each in base.layers:
        if hasattr(each, "self_attn"):
            own = each.self_attn
            rotation = None if own.sliding_window is None else 0
            mixer: Any = attention(own, window=own.sliding_window, norms=head_norms(own), rotation=rotation)
        else:
            mixer = delta_net(each.linear_attn)
        layers.append(layer(each, mixer, experts(each.mlp, config)))
    return decoder(model, layers, rms_norm(base.norm))


CLASSES = {"LaraMiniForCausalLM": describe}
