"""Llama 4: chunks, layers without rotation whose queries grow, and experts that scale what they read."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from rapid_integrations.kernels.layers import AttentionKind, Norm, Routing
from rapid_integrations.models.description import Attention, Decoder, Experts, Growth, Stack
from rapid_integrations.models.families.parts import activation, decoder, gated_mlp, layer, rms_norm
from rapid_integrations.models.stack_forms import transposed


def describe(model: Any) -> Decoder:
    """Describe a model, or the text part of one of text and pictures, in which its class stands."""
    config, base = model.config, model.base_model.model
    layers = [
        layer(
            each,
            _attention(each.self_attn, config, config.layer_types[index]),
            _experts(each.feed_forward, config) if each.is_moe_layer else gated_mlp(each.feed_forward, config),
        )
        for index, each in enumerate(base.layers)
    ]
    text = SimpleNamespace(base_model=base, config=config, lm_head=model.lm_head)
    return decoder(text, layers, rms_norm(base.norm))


def _attention(own: Any, config: Any, kind: str) -> Attention:
    norm = Norm(None, own.qk_norm.eps) if hasattr(own, "qk_norm") else None
    grows = own.attn_temperature_tuning and not own.use_rope
    return Attention(
        qkv=(own.q_proj, own.k_proj, own.v_proj),
        out=own.o_proj,
        scale=own.scaling,
        kind=AttentionKind(chunk=config.attention_chunk_size if kind == "chunked_attention" else None),
        query=norm,
        key=norm,
        rotation=0 if own.use_rope else None,
        interleaved=True,
        norm_behind=True,
        growth=Growth(int(own.floor_scale), float(own.attn_scale)) if grows else None,
    )


def _experts(module: Any, config: Any) -> Experts:
    return Experts(
        router=(module.router.weight, None),
        routing=Routing(taken=module.top_k, sigmoid=True, normalised=False, shared=True, scales_inputs=True),
        gate_up=Stack(module.experts, "gate_up_proj", taken=transposed, given=transposed),
        down=Stack(module.experts, "down_proj", taken=transposed, given=transposed),
        activation=activation(config.hidden_act),
        inner=module.experts.expert_dim,
        shared=gated_mlp(module.shared_expert, config),
    )


CLASSES = {"Llama4ForCausalLM": describe}
