"""DeepSeek V2 to V3.2, GLM-4.7-Flash, GLM-5, MiniCPM3 and families like them: multi-head latent attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rapid_integrations.kernels.layers import Routing
from rapid_integrations.models.description import (
    Attention,
    Decoder,
    Experts,
    Indexer,
    Latent,
    Layer,
    NotDescribedError,
    Stack,
)
from rapid_integrations.models.families.parts import activation, decoder, gated_mlp, layer, layer_norm, rms_norm

_INDEXED = ("DeepseekV32", "GlmMoeDsa")  # an indexer chooses the keys that a row sees


def describe(model: Any) -> Decoder:
    """Describe a model."""
    config, base = model.config, model.base_model
    minicpm = type(base).__name__ == "MiniCPM3Model"
    interleaved = getattr(config, "rope_interleave", not minicpm)
    indexed = type(base).__name__.startswith(_INDEXED)
    layers: list[Layer] = []
    for each in base.layers:
        mlp = grouped_experts(each.mlp, config) if hasattr(each.mlp, "experts") else gated_mlp(each.mlp, config)
        behind = getattr(each.mlp, "post_mlp_layernorm", None)  # of A.X K1
        residual = getattr(each, "residual_scale", 1.0)  # of MiniCPM3
        attention = latent_attention(each.self_attn, interleaved)
        if indexed:
            attention = with_choice(attention, each.self_attn, layers)
        own = layer(each, attention, mlp, residual=residual)
        layers.append(own if behind is None else replace(own, after_mlp=rms_norm(behind)))
    described = replace(decoder(model, layers, rms_norm(base.norm)), kv_heads=1, head_dim=config.qk_rope_head_dim)
    scales = (config.scale_emb, config.dim_model_base / config.hidden_size) if minicpm else (1.0, 1.0)
    return replace(described, embedding_scale=float(scales[0]), logit_scale=scales[1])


def latent_attention(module: Any, interleaved: bool) -> Attention:
    """Describe an attention with `q_proj` or `q_a_proj` and `q_b_proj`, `kv_a_proj_with_mqa` and `kv_b_proj`."""
    compressed = module.q_lora_rank is not None
    return Attention(
        qkv=(module.q_a_proj if compressed else module.q_proj, module.kv_a_proj_with_mqa),
        out=module.o_proj,
        scale=module.scaling,
        interleaved=interleaved,
        latent=Latent(
            rank=module.kv_lora_rank,
            plain=module.qk_nope_head_dim,
            rotated=module.qk_rope_head_dim,
            value=module.v_head_dim,
            norm=rms_norm(module.kv_a_layernorm),
            up=module.kv_b_proj,
            query_norm=rms_norm(module.q_a_layernorm) if compressed else None,
            query_up=module.q_b_proj if compressed else None,
        ),
    )


def with_choice(attention: Attention, module: Any, before: Sequence[Layer]) -> Attention:
    """Return an attention that sees the keys which its indexer chooses, or has chosen in a layer before it.

    Raises:
        NotDescribedError: no layer before it has an indexer.
    """
    assert attention.latent is not None
    if (own := module.indexer) is not None:
        indexer = Indexer(
            query=own.wq_b,
            key=own.wk,
            key_norm=layer_norm(own.k_norm),
            weights=own.weights_proj,
            heads=own.n_heads,
            dim=own.head_dim,
            rotated=own.qk_rope_head_dim,
            interleaved=type(own).__name__.startswith("GlmMoeDsa"),  # DeepSeek's rotates halves
        )
        return replace(attention, latent=replace(attention.latent, indexer=indexer, chosen=own.index_topk))
    latents = [each.attends.latent for each in before if each.attends is not None]
    choosing = [index for index, each in enumerate(latents) if each is not None and each.indexer is not None]
    if not choosing:
        raise NotDescribedError("its first layers take a choice of keys that no layer before them makes")
    source = latents[choosing[-1]]
    assert source is not None
    return replace(attention, latent=replace(attention.latent, choice_of=choosing[-1], chosen=source.chosen))


def grouped_experts(module: Any, config: Any) -> Experts:
    """Describe experts of which a row takes those of a few groups."""
    router = module.gate
    correction = getattr(router, "e_score_correction_bias", None)  # DeepSeek V2 has none, and no sigmoids
    grouped = getattr(router, "topk_method", "noaux_tc") != "greedy"
    return Experts(
        router=(router.weight, None),
        routing=Routing(
            taken=router.top_k,
            sigmoid=correction is not None,
            normalised=bool(getattr(router, "norm_topk_prob", False)),
            scale=float(router.routed_scaling_factor),
            groups=router.num_group if grouped else 1,
            groups_taken=router.topk_group if grouped else 1,
            group_best=1 if correction is None else 2,
            correction=None if correction is None else correction.float(),
            shared=True,
        ),
        gate_up=Stack(module.experts, "gate_up_proj"),
        down=Stack(module.experts, "down_proj"),
        activation=activation(config.hidden_act),
        inner=module.experts.intermediate_dim,
        shared=gated_mlp(module.shared_experts, config),
    )


_PREFIXES = ("AXK1", "DeepseekV2", "DeepseekV3", "Glm4MoeLite", "MiniCPM3", "Youtu", *_INDEXED)
CLASSES = dict.fromkeys((f"{prefix}ForCausalLM" for prefix in _PREFIXES), describe)
