"""Gemma 1, 2 and 3 and VaultGemma: norms whose weights are stored less one, scaled embeddings, norms behind parts."""

from __future__ import annotations

from typing import Any

from rapid_integrations.kernels.layers import AttentionKind
from rapid_integrations.models.description import Decoder, Layer, NotDescribedError
from rapid_integrations.models.families.parts import (
    attention,
    decoder,
    gated_mlp,
    head_norms,
    layer,
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
    layers = [
        Layer(
            attention=attention(
                each.self_attn,
                window=sliding(config, index),
                kind=AttentionKind(softcap=config.attn_logit_softcapping),
                norms=head_norms(each.self_attn, rms_norm_plus_one),
                rotation=kinds.index(config.layer_types[index]) if of_kind else 0,
            ),
            mlp=gated_mlp(each.mlp, config, "hidden_activation"),
            before_attention=rms_norm_plus_one(each.input_layernorm),
            after_attention=None if vault else rms_norm_plus_one(each.post_attention_layernorm),
            before_mlp=rms_norm_plus_one(each.pre_feedforward_layernorm),
            after_mlp=None if vault else rms_norm_plus_one(each.post_feedforward_layernorm),
        )
        for index, each in enumerate(base.layers)
    ]
    return decoder(
        model,
        layers,
        rms_norm_plus_one(base.norm),
        rotations=[rotation_of(base.rotary_emb, kind) for kind in kinds] if of_kind else None,
        embedding_scale=scale_of(base.embed_tokens),
        logit_softcap=config.final_logit_softcapping,
    )


CLASSES = dict.fromkeys(("Gemma2ForCausalLM", "Gemma3ForCausalLM", "VaultGemmaForCausalLM"), describe)
CLASSES["GemmaForCausalLM"] = describe_first
