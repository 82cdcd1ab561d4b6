"""OLMo hybrid: gated delta nets with norms before them, beside attentions with norms behind, as OLMo 2 has them."""

from __future__ import annotations

from typing import Any

from rapid_integrations.models.description import Decoder, Layer, NotDescribedError, Recurrence
from rapid_integrations.models.families.parts import (
    attention,
    decoder,
    gated_mlp,
    head_norms,
    layer,
    rms_norm,
    rms_norm_of_all_heads,
)


def describe(model: Any) -> Decoder:
    """Describe a model. Published ones have no rotations."""
    config, base = model.config, model.base_model
    rotation = None if base.rotary_emb is None else 0
    layers = []
    for each in base.layers:
        mlp = gated_mlp(each.mlp, config)
        if hasattr(each, "linear_attn"):
            layers.append(layer(each, _recurrence(each.linear_attn), mlp))
            continue
        norms = head_norms(each.self_attn, rms_norm_of_all_heads)
        layers.append(
            Layer(
                attention(each.self_attn, norms=norms, rotation=rotation),
                mlp,
                after_attention=rms_norm(each.post_attention_layernorm),
                after_mlp=rms_norm(each.post_feedforward_layernorm),
            )
        )
    return decoder(model, layers, rms_norm(base.norm), rotations=[] if rotation is None else None)


def _recurrence(module: Any) -> Recurrence:
    if module.activation not in ("silu", "swish") or module.conv1d.bias is not None:
        raise NotDescribedError("its convolutions have another activation than SiLU, or a bias")
    return Recurrence(
        inputs=(module.q_proj, module.k_proj, module.v_proj, module.g_proj),
        rates=(module.b_proj, module.a_proj),
        out=module.o_proj,
        key_heads=module.num_k_heads,
        value_heads=module.num_v_heads,
        key_dim=module.head_k_dim,
        value_dim=module.head_v_dim,
        convolution=module.conv1d.weight,
        decay=module.A_log,
        bias=module.dt_bias,
        norm=rms_norm(module.o_norm),
        rate_scale=2.0 if module.allow_neg_eigval else 1.0,
    )


CLASSES = {"OlmoHybridForCausalLM": describe}
