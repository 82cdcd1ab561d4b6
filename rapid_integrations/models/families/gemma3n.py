"""Gemma 3n: streams of states, augmented residuals, sparse MLPs, inputs of every layer, and keys of other layers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rapid_integrations.kernels.layers import Norm
from rapid_integrations.models.description import Alternation, Attention, Decoder, Laurel, Streams
from rapid_integrations.models.families.gemma import decoder_of_kinds
from rapid_integrations.models.families.parts import (
    gated_mlp,
    layer_between_norms,
    layer_input,
    layer_inputs,
    rms_norm,
    rounded,
    sliding,
)


def describe(model: Any) -> Decoder:
    """Describe the language model."""
    config, base = model.config, model.base_model
    dtype = base.embed_tokens_per_layer.weight.dtype
    kinds, layers = sorted(set(config.layer_types)), []
    last: dict[str, int] = {}  # layer of each kind that has keys of its own
    for index, (each, kind) in enumerate(zip(base.layers, config.layer_types, strict=True)):
        if not each.self_attn.is_kv_shared_layer:
            last[kind] = index
        mlp = gated_mlp(each.mlp, config, "hidden_activation")
        own = _attention(each.self_attn, sliding(config, index), kinds.index(kind), last[kind])
        laurel = each.laurel
        others: dict[str, Any] = {
            "input": layer_input(each, config),
            "alternation": _alternation(each.altup, config),
            "laurel": Laurel(laurel.linear_left, laurel.linear_right, rms_norm(laurel.post_laurel_norm)),
        }
        layers.append(layer_between_norms(each, own, replace(mlp, sparsity=each.mlp.activation_sparsity), **others))
    return decoder_of_kinds(
        model,
        layers,
        rms_norm(base.norm),
        kinds,
        inputs=layer_inputs(base, rounded(base.hidden_size**-0.5, dtype), rounded(0.5**0.5, dtype)),
        streams=Streams(tuple(base.altup_projections), tuple(base.altup_unembed_projections), config.altup_active_idx),
    )


def _attention(own: Any, window: int | None, rotation: int, last: int) -> Attention:
    query = rms_norm(own.q_norm)
    places: dict[str, Any] = {"window": window, "rotation": rotation, "query": query}
    if own.is_kv_shared_layer:
        return Attention((own.q_proj,), own.o_proj, own.scaling, key=query, keys_of=last, **places)
    norms: dict[str, Any] = {"key": rms_norm(own.k_norm), "value": Norm(None, own.v_norm.eps)}
    return Attention((own.q_proj, own.k_proj, own.v_proj), own.o_proj, own.scaling, **norms, **places)


def _alternation(own: Any, config: Any) -> Alternation:
    output = own.correct_output_scale if config.altup_correct_scale else None
    scale = 1 / config.hidden_size
    return Alternation(
        own.prediction_coefs, own.correction_coefs, own.modality_router, rms_norm(own.router_norm), scale, output
    )


CLASSES = {"Gemma3nForCausalLM": describe}
