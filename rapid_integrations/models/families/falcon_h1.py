"""Falcon-H1: an attention and a Mamba2 side by side in every layer, with factors on what each part reads and gives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rapid_integrations.models.description import Attention, Decoder, Layer, NotDescribedError, Recurrence
from rapid_integrations.models.families.mamba2 import mamba2
from rapid_integrations.models.families.parts import attention, decoder, gated_mlp, rms_norm


def describe(model: Any) -> Decoder:
    """Describe a model."""
    config, base = model.config, model.base_model
    gate, down = (float(each) for each in config.mlp_multipliers)
    layers = [
        Layer(
            _attention(each.self_attn, config),
            replace(gated_mlp(each.feed_forward, config), gate_factor=gate, factor=down),
            rms_norm(each.input_layernorm),
            rms_norm(each.pre_ff_layernorm),
            recurrence=_recurrence(each.mamba, config),
        )
        for each in base.layers
    ]
    return decoder(
        model,
        layers,
        rms_norm(base.final_layernorm),
        embedding_scale=float(config.embedding_multiplier),
        logit_scale=float(config.lm_head_multiplier),
    )


def _attention(module: Any, config: Any) -> Attention:
    """Describe an attention. A factor on what it reads is one on its values, and twice one on its scores."""
    read = float(config.attention_in_multiplier)
    if read != 1 and module.q_proj.bias is not None:
        raise NotDescribedError("a factor on what its attention reads is none on its biases")
    scale = module.scaling * float(module.key_multiplier) * read**2
    return replace(attention(module), scale=scale, factor=read * float(config.attention_out_multiplier))


def _recurrence(module: Any, config: Any) -> Recurrence:
    """Describe a Mamba2, whose parts are gates, values, keys, queries and steps."""
    read = float(module.ssm_in_multiplier)
    if read != 1 and module.in_proj.bias is not None:
        raise NotDescribedError("a factor on what its Mamba2 reads is none on its biases")
    own = mamba2(module, rms_norm(module.norm) if module.mamba_rms_norm else None)
    inner, keys = own.value_heads * own.value_dim, own.key_heads * own.key_dim
    factors = config.ssm_multipliers
    if not module.mup_vector.is_meta:  # it has them for each row of its matrix, rounded to its own dtype
        factors = module.mup_vector[0, 0, [0, inner, 2 * inner, 2 * inner + keys, -1]].tolist()
    gates, values, of_keys, queries, steps = (read * float(each) for each in factors)
    return replace(
        own,
        together=inner // own.key_heads if module.mamba_rms_norm else 0,
        gates_behind=module.mamba_rms_norm and bool(config.mamba_norm_before_gate),
        factors=(queries, of_keys, values, gates, steps),
        factor=float(config.ssm_out_multiplier),
    )


CLASSES = {"FalconH1ForCausalLM": describe}
