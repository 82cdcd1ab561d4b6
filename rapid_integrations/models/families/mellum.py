"""Mellum and Flint: experts beside windows, with angles for each kind of layer, or sinks and layers without angles."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rapid_integrations.kernels.layers import PLAIN, AttentionKind
from rapid_integrations.models.description import Decoder, Experts
from rapid_integrations.models.families.mixtral import experts
from rapid_integrations.models.families.parts import (
    attention,
    decoder,
    gated_mlp,
    head_norms,
    layer,
    rms_norm,
    rotation_of,
    sliding,
)


def describe(model: Any) -> Decoder:
    """Describe a model."""
    config, base = model.config, model.base_model
    flint = type(model).__name__.startswith("Flint")
    kinds = sorted(set(config.layer_types))
    layers = []
    for index, each in enumerate(base.layers):
        window = sliding(config, index)
        rotation: int | None = kinds.index(config.layer_types[index])
        if flint:  # rotates only the layers that have windows
            rotation = 0 if window is not None else None
        own = attention(
            each.self_attn,
            window=window,
            kind=AttentionKind(sinks=each.self_attn.sinks) if flint else PLAIN,
            norms=head_norms(each.self_attn),
            rotation=rotation,
        )
        mlp: Any = gated_mlp(each.mlp, config) if hasattr(each.mlp, "down_proj") else _experts(each.mlp, config, flint)
        layers.append(layer(each, own, mlp))
    rotations = None if flint else [rotation_of(base.rotary_emb, kind) for kind in kinds]
    return decoder(model, layers, rms_norm(base.norm), rotations=rotations)


def _experts(module: Any, config: Any, flint: bool) -> Experts:
    described = experts(module, config)
    return replace(described, routing=replace(described.routing, sigmoid=True)) if flint else described


CLASSES = {"MellumForCausalLM": describe, "FlintForCausalLM": describe}
