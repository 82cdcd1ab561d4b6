"""OLMo 1 to 3, FlexOlmo and EXAONE 4: norms behind attention and MLP instead of before them, and norms of all heads."""

from __future__ import annotations

from typing import Any

from rapid_integrations.kernels.layers import Norm
from rapid_integrations.models.description import Decoder, Layer, NotDescribedError
from rapid_integrations.models.families.mixtral import experts
from rapid_integrations.models.families.parts import (
    attention,
    decoder,
    gated_mlp,
    head_norms,
    rms_norm,
    rms_norm_of_all_heads,
    rotation_of,
    sliding,
)

_PLAIN_NORM = Norm(None, 1e-5, centred=True)


def describe_first(model: Any) -> Decoder:
    """Describe OLMo 1, whose norms have no weights."""
    config = model.config
    if config.clip_qkv is not None:
        raise NotDescribedError("its queries, keys and values are clipped (clip_qkv)")
    layers = [
        Layer(
            attention=attention(each.self_attn),
            mlp=gated_mlp(each.mlp, config),
            before_attention=_PLAIN_NORM,
            before_mlp=_PLAIN_NORM,
        )
        for each in model.base_model.layers
    ]
    return decoder(model, layers, _PLAIN_NORM)


def describe(model: Any) -> Decoder:
    """Describe OLMo 2 or 3, FlexOlmo, which has experts, or EXAONE 4."""
    config, base = model.config, model.base_model
    exaone = type(model).__name__.startswith("Exaone")
    kinds = sorted(set(getattr(config, "layer_types", None) or ()))
    of_kind = bool(kinds) and hasattr(base.rotary_emb, f"{kinds[0]}_inv_freq")
    layers = []
    for index, each in enumerate(base.layers):
        window = sliding(config, index)
        unrotated = exaone and config.sliding_window is not None and window is None
        rotation = kinds.index(config.layer_types[index]) if of_kind else 0
        layers.append(
            Layer(
                attention=attention(
                    each.self_attn,
                    window=window,
                    norms=head_norms(each.self_attn, rms_norm if exaone else rms_norm_of_all_heads),
                    rotation=None if unrotated else rotation,
                ),
                mlp=experts(each.mlp, config) if hasattr(each.mlp, "experts") else gated_mlp(each.mlp, config),
                after_attention=rms_norm(each.post_attention_layernorm),
                after_mlp=rms_norm(each.post_feedforward_layernorm),
            )
        )
    rotations = [rotation_of(base.rotary_emb, kind) for kind in kinds] if of_kind else None
    return decoder(model, layers, rms_norm(base.norm), rotations=rotations)


CLASSES = dict.fromkeys(("Olmo2ForCausalLM", "Olmo3ForCausalLM", "Exaone4ForCausalLM", "FlexOlmoForCausalLM"), describe)
CLASSES["OlmoForCausalLM"] = describe_first
