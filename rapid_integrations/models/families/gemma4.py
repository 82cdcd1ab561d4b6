"""Gemma 4: heads of two sizes, layers that read the keys of others, inputs of every layer, experts beside an MLP."""

from __future__ import annotations

from typing import Any

from rapid_integrations.kernels.layers import Branches, Norm, Routing
from rapid_integrations.models.description import Attention, Decoder, Experts, NotDescribedError, Stack
from rapid_integrations.models.families.gemma import decoder_of_kinds
from rapid_integrations.models.families.parts import (
    activation,
    gated_mlp,
    layer_between_norms,
    layer_input,
    layer_inputs,
    rms_norm,
    sliding,
)


def describe(model: Any) -> Decoder:
    """Describe a model."""
    config, base = model.config, model.base_model
    if config.use_bidirectional_attention == "all":
        raise NotDescribedError("its attention looks in both directions")
    kinds, layers, inputs = sorted(set(config.layer_types)), [], None
    if getattr(config, "hidden_size_per_layer_input", None):  # those without an encoder of pictures have none
        inputs = layer_inputs(base, base.per_layer_model_projection_scale, base.per_layer_input_scale)
    last: dict[str, int] = {}  # layer of each kind that has keys of its own
    for index, (each, kind) in enumerate(zip(base.layers, config.layer_types, strict=True)):
        if not each.self_attn.is_kv_shared_layer:
            last[kind] = index
        own = _attention(each.self_attn, config, index, kinds.index(kind), last[kind])
        others: dict[str, Any] = {
            "input": layer_input(each, config) if inputs else None,
            "scale": each.layer_scalar,
            "beside": _experts(each, config) if getattr(config, "enable_moe_block", False) else None,
        }
        layers.append(layer_between_norms(each, own, gated_mlp(each.mlp, config, "hidden_activation"), **others))
    kv_heads = config.num_attention_heads // base.layers[0].self_attn.num_key_value_groups
    return decoder_of_kinds(model, layers, rms_norm(base.norm), kinds, inputs=inputs, kv_heads=kv_heads)


def _attention(own: Any, config: Any, index: int, rotation: int, last: int) -> Attention:
    query, shared = rms_norm(own.q_norm), own.is_kv_shared_layer
    kv_heads = config.num_attention_heads // own.num_key_value_groups
    shape: dict[str, Any] = {"kv_heads": kv_heads, "head_dim": own.head_dim}
    places: dict[str, Any] = {"window": sliding(config, index), "rotation": rotation}
    if shared:
        return Attention((own.q_proj,), own.o_proj, 1.0, query=query, key=query, keys_of=last, **shape, **places)
    keys = own.k_proj, own.v_proj or own.k_proj  # some layers have values that are their keys before norm and rotation
    norms: dict[str, Any] = {"query": query, "key": rms_norm(own.k_norm), "value": Norm(None, own.v_norm.eps)}
    return Attention((own.q_proj, *keys), own.o_proj, 1.0, **norms, **shape, **places)


def _experts(each: Any, config: Any) -> Experts:
    router = each.router
    return Experts(
        router=(router.proj.weight, None),
        routing=Routing(config.top_k_experts, logit_scale=router.scalar_root_size, factors=router.per_expert_scale),
        gate_up=Stack(each.experts, "gate_up_proj"),
        down=Stack(each.experts, "down_proj"),
        activation=activation(config.hidden_activation),
        inner=each.experts.intermediate_dim,
        branches=Branches(
            router=Norm(router.scale, router.eps),
            before=rms_norm(each.pre_feedforward_layernorm_2),
            after=rms_norm(each.post_feedforward_layernorm_2),
            after_mlp=rms_norm(each.post_feedforward_layernorm_1),
        ),
    )


CLASSES = dict.fromkeys(("Gemma4ForCausalLM", "Gemma4UnifiedForCausalLM"), describe)
