"""Gemma 1, 2 and 3 and VaultGemma: norms whose weights are stored less one, scaled embeddings, norms behind parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rapid_integrations.kernels.layers import AttentionKind, Norm
from rapid_integrations.models.description import Decoder, Layer, NotDescribedError
from rapid_integrations.models.families.parts import (
    attention,
    decoder,
    gated_mlp,
    head_norms,
    layer,
    layer_between_norms,
    rms_norm_plus_one,
    rotation_of,
    sliding,
)
from rapid_integrations.models.families.parts import embedding_scale as scale_of


def describe_first(model: Any) -> Decoder:
    """Describe Gemma 1."""
    config, base = model.config, model.base_model
    layers = [
        layer(each, attention(each.self_attn), gated_mlp(each.mlp, config), rms_norm_plus_one) for each in base.layers
    ]
    return decoder(model, layers, rms_norm_plus_one(base.norm), embedding_scale=scale_of(base.embed_tokens))


def describe(model: Any) -> Decoder:
    """Describe Gemma 2, the text part of Gemma 3, or VaultGemma, which has no norms behind attention and MLP."""
    config, base = model.config, model.base_model
    if getattr(config, "use_bidirectional_attention", False):
        raise NotDescribedError("its attention looks in both directions")
    kinds, vault = sorted(set(config.layer_types)), type(model).__name__.startswith("Vault")
    of_kind = hasattr(base.rotary_emb, f"{kinds[0]}_inv_freq")
    layers = []
    for index, each in enumerate(base.layers):
        own = attention(
            each.self_attn,
            window=sliding(config, index),
            kind=AttentionKind(softcap=config.attn_logit_softcapping),
            norms=head_norms(each.self_attn, rms_norm_plus_one),
            rotation=kinds.index(config.layer_types[index]) if of_kind else 0,
        )
        mlp = gated_mlp(each.mlp, config, "hidden_activation")
        if vault:
            norms = rms_norm_plus_one(each.input_layernorm), rms_norm_plus_one(each.pre_feedforward_layernorm)
            layers.append(Layer(own, mlp, *norms))
        else:
            layers.append(layer_between_norms(each, own, mlp, rms_norm_plus_one))
    return decoder_of_kinds(model, layers, rms_norm_plus_one(base.norm), kinds if of_kind else None)


def decoder_of_kinds(
    model: Any, layers: Sequence[Layer], norm: Norm, kinds: Sequence[str] | None, **others: Any
) -> Decoder:
    """Describe a Gemma whose kinds of layers have angles of their own, if `kinds` are given; see `decoder`."""
    rotary = model.base_model.rotary_emb
    return decoder(
        model,
        layers,
        norm,
        rotations=None if kinds is None else [rotation_of(rotary, kind) for kind in kinds],
        embedding_scale=scale_of(model.base_model.embed_tokens),
        logit_softcap=model.config.final_logit_softcapping,
        **others,
    )


CLASSES = dict.fromkeys(("Gemma2ForCausalLM", "Gemma3ForCausalLM", "VaultGemmaForCausalLM"), describe)
CLASSES["GemmaForCausalLM"] = describe_first
