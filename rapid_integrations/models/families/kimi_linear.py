"""Kimi Linear: delta nets with a decay for each number of a key, beside latent attentions without positions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rapid_integrations.models.description import Decoder, NotDescribedError, Recurrence
from rapid_integrations.models.families.grouped_experts import grouped_experts
from rapid_integrations.models.families.latent import latent_attention
from rapid_integrations.models.families.parts import decoder, gated_mlp, layer, rms_norm


def describe(model: Any) -> Decoder:
    """Describe a model.

    Raises:
        NotDescribedError: none of its layers attends, or its convolutions are others.
    """
    config, base = model.config, model.base_model
    layers = []
    for each in base.layers:
        mlp = grouped_experts(each.mlp, config) if hasattr(each.mlp, "experts") else gated_mlp(each.mlp, config)
        if each.block_type == "linear_attention":
            layers.append(layer(each, _recurrence(each.self_attn), mlp))
        else:
            layers.append(layer(each, replace(latent_attention(each.self_attn, False), rotation=None), mlp))
    if all(each.attends is None for each in layers):
        raise NotDescribedError("none of its layers attends")
    described = decoder(model, layers, rms_norm(base.norm), rotations=[])
    return replace(described, kv_heads=1, head_dim=config.qk_rope_head_dim)


def _recurrence(module: Any) -> Recurrence:
    if module.activation not in ("silu", "swish") or module.conv1d.bias is not None:
        raise NotDescribedError("its convolutions have another activation than SiLU, or a bias")
    gate = module.forget_gate
    return Recurrence(
        inputs=(module.q_proj, module.k_proj, module.v_proj),
        rates=(module.b_proj, gate.f_a_proj, module.g_a_proj),
        out=module.o_proj,
        key_heads=module.num_heads,
        value_heads=module.num_heads,
        key_dim=module.head_dim,
        value_dim=module.head_dim,
        convolution=module.conv1d.weight,
        decay=gate.A_log,
        bias=gate.dt_bias,
        norm=rms_norm(module.o_norm),
        sigmoid_gates=True,
        decay_up=gate.f_b_proj,
        gate_up=module.g_b_proj,
    )


CLASSES = {"KimiLinearForCausalLM": describe}
