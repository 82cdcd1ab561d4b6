"""Nemotron-H and Nemotron 3: blocks that are a Mamba2, an attention without positions, an MLP or experts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rapid_integrations.kernels.layers import Routing
from rapid_integrations.models.description import Decoder, Experts, Layer, Mlp, NotDescribedError, Stack
from rapid_integrations.models.families.mamba2 import mamba2
from rapid_integrations.models.families.parts import activation, attention, rms_norm


def describe(model: Any) -> Decoder:
    """Describe a model. A block that mixes tokens and an MLP behind it are one layer here."""
    config, base = model.config, model.base_model
    layers: list[Layer] = []
    modules: list[Any] = []
    for each in base.layers:
        norm, mixer = rms_norm(each.norm), each.mixer
        if each.block_type in ("linear_attention", "full_attention"):
            attends = each.block_type == "full_attention"
            own = attention(mixer, rotation=None) if attends else mamba2(mixer, rms_norm(mixer.norm))
            layers.append(Layer(own, None, norm))
            modules.append(each)
            continue
        if not layers or layers[-1].mlp is not None:
            raise NotDescribedError("a block without attention or Mamba2 is its first one, or follows another such one")
        mlp = _mlp(mixer, config) if each.block_type == "mlp" else _experts(mixer, config)
        layers[-1], modules[-1] = replace(layers[-1], mlp=mlp, before_mlp=norm), (modules[-1], each)
    if all(layer.attends is None for layer in layers):
        raise NotDescribedError("none of its layers attends")
    return Decoder(
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        embedding=base.embeddings,
        layers=layers,
        modules=modules,
        norm=rms_norm(base.norm_f),
        head=model.lm_head,
        rotations=[],
    )


def _mlp(module: Any, config: Any) -> Mlp:
    return Mlp((module.up_proj,), module.down_proj, activation(config.mlp_hidden_act), gated=False)


def _experts(module: Any, config: Any) -> Experts:
    if config.moe_latent_size is not None:
        raise NotDescribedError("its experts read and give latents (moe_latent_size)")
    router = module.gate
    return Experts(
        router=(router.weight, None),
        routing=Routing(
            taken=router.top_k,
            sigmoid=True,
            normalised=router.norm_topk_prob,
            scale=float(router.routed_scaling_factor),
            groups=router.num_group,
            groups_taken=router.topk_group,
            correction=router.e_score_correction_bias,
            shared=True,
        ),
        gate_up=Stack(module.experts, "up_proj"),
        down=Stack(module.experts, "down_proj"),
        activation=activation(config.mlp_hidden_act),
        shared=_mlp(module.shared_experts, config),
        inner=module.experts.intermediate_dim,
        gated=False,
    )


CLASSES = {"NemotronHForCausalLM": describe}
