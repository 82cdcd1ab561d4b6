"""LFM2: short convolutions beside a few attentions, dense or with experts."""

from __future__ import annotations

from typing import Any

from rapid_integrations.kernels.layers import Routing
from rapid_integrations.models.description import Decoder, Experts, Layer, Mlp, ShortConvolution, Stack
from rapid_integrations.models.families.parts import activation, attention, decoder, rms_norm, rotation_of


def describe(model: Any) -> Decoder:
    """Describe a model."""
    base = model.base_model
    layers = []
    for each in base.layers:
        mixer = _attention(each.self_attn) if hasattr(each, "self_attn") else convolution(each.conv)
        mlp = _experts(each.feed_forward) if hasattr(each.feed_forward, "experts") else swiglu(each.feed_forward)
        layers.append(Layer(mixer, mlp, rms_norm(each.operator_norm), rms_norm(each.ffn_norm)))
    rotary = base.rotary_emb if hasattr(base, "rotary_emb") else base.pos_emb  # of the one with experts
    return decoder(model, layers, rms_norm(base.embedding_norm), rotations=[rotation_of(rotary)])


def _attention(module: Any) -> Any:
    norms = rms_norm(module.q_layernorm), rms_norm(module.k_layernorm)
    return attention(module, norms=norms, out=module.out_proj)


def convolution(module: Any) -> ShortConvolution:
    """Describe a short convolution with `in_proj`, `conv` and `out_proj`."""
    return ShortConvolution(
        inputs=(module.in_proj,),
        out=module.out_proj,
        convolution=module.conv.weight,
        convolution_bias=module.conv.bias,
    )


def swiglu(module: Any) -> Mlp:
    """Describe an MLP with `w1`, `w3` and `w2`."""
    return Mlp((module.w1, module.w3), module.w2, activation("silu"))


def _experts(module: Any) -> Experts:
    router = module.gate
    return Experts(
        router=(router.weight, None),
        routing=Routing(
            taken=router.top_k,
            sigmoid=True,
            normalised=router.norm_topk_prob,
            scale=router.routed_scaling_factor,
            correction=module.expert_bias if module.use_expert_bias else None,
        ),
        gate_up=Stack(module.experts, "gate_up_proj"),
        down=Stack(module.experts, "down_proj"),
        activation=activation("silu"),
        inner=module.experts.intermediate_dim,
    )


CLASSES = dict.fromkeys(("Lfm2ForCausalLM", "Lfm2MoeForCausalLM"), describe)
