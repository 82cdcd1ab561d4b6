"""Families whose experts are chosen by a softmax: Mixtral, Qwen2-MoE, Qwen3-MoE, OLMoE and Granite-MoE."""

from __future__ import annotations

from typing import Any

from rapid_integrations.kernels.layers import Routing
from rapid_integrations.models.description import Decoder, Experts, NotDescribedError, Stack
from rapid_integrations.models.families.parts import (
    activation,
    attention,
    decoder,
    gated_mlp,
    head_norms,
    layer,
    rms_norm,
    rms_norm_of_all_heads,
    shared_mlp,
    sliding,
)


def describe(model: Any) -> Decoder:
    """Describe a model."""
    config, base = model.config, model.base_model
    if getattr(config, "clip_qkv", None) is not None:
        raise NotDescribedError("its queries, keys and values are clipped (clip_qkv)")
    granite = hasattr(config, "residual_multiplier")
    olmoe = type(model).__name__ == "OlmoeForCausalLM"
    kinds = getattr(config, "layer_types", None)
    layers = []
    for index, each in enumerate(base.layers):
        module = each.block_sparse_moe if granite else each.mlp
        own = attention(
            each.self_attn,
            window=sliding(config, index) if kinds else getattr(config, "sliding_window", None),
            norms=head_norms(each.self_attn, rms_norm_of_all_heads if olmoe else rms_norm),
        )
        beside = getattr(each, "shared_mlp", None)
        mlp = experts(module, config, beside) if hasattr(module, "experts") else gated_mlp(module, config)
        layers.append(layer(each, own, mlp, residual=float(config.residual_multiplier) if granite else 1.0))
    return decoder(
        model,
        layers,
        rms_norm(base.norm),
        embedding_scale=float(config.embedding_multiplier) if granite else 1.0,
        logit_scale=1 / config.logits_scaling if granite else 1.0,
    )


def experts(module: Any, config: Any, beside: Any = None) -> Experts:
    """Describe experts that a softmax chooses, with an MLP that Granite has `beside` them."""
    router = module.gate if hasattr(module, "gate") else module.router
    shared = getattr(module, "shared_expert", None)
    gate = getattr(module, "shared_expert_gate", None)
    mlp = None if shared is None else gated_mlp(shared, config)
    if beside is not None:
        mlp = shared_mlp(beside, config)
    return Experts(
        router=(router.weight, None),
        routing=Routing(
            taken=router.top_k,
            normalised=bool(getattr(router, "norm_topk_prob", True)),
            shared=mlp is not None,
            shared_gate=gate is not None,
        ),
        gate_up=Stack(module.experts, "gate_up_proj"),
        down=Stack(module.experts, "down_proj"),
        activation=activation(config.hidden_act),
        inner=module.experts.intermediate_dim,
        shared=mlp,
        shared_gate=gate,
    )


CLASSES = dict.fromkeys(
    (f"{name}ForCausalLM" for name in ("Mixtral", "Qwen2Moe", "Qwen3Moe", "Olmoe", "GraniteMoe", "GraniteMoeShared")),
    describe,
)
