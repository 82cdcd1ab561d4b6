"""LFM3: short convolutions beside attentions whose heads have a gate each, and norms behind both parts."""

from __future__ import annotations

from typing import Any

from torch import nn

from rapid_integrations.kernels.layers import Norm
from rapid_integrations.models.description import Attention, Decoder, Layer
from rapid_integrations.models.families.gated_heads import with_gates
from rapid_integrations.models.families.lfm2 import convolution, swiglu
from rapid_integrations.models.families.parts import attention, decoder, head_norms, rms_norm, rotation_of, sliding


def describe(model: Any) -> Decoder:
    """Describe a model."""
    config, base = model.config, model.base_model
    kinds = base.rotary_emb.layer_types
    layers = []
    for index, each in enumerate(base.layers):
        if hasattr(each, "self_attn"):
            rotation = kinds.index(config.layer_types[index])
            mixer: Any = _attention(each.self_attn, sliding(config, index), rotation)
        else:
            mixer = convolution(each.conv)
        layers.append(
            Layer(
                attention=mixer,
                mlp=swiglu(each.feed_forward),
                before_attention=rms_norm(each.operator_norm),
                after_attention=_behind(each.post_operator_norm),
                before_mlp=rms_norm(each.ffn_norm),
                after_mlp=_behind(each.post_ffn_norm),
            )
        )
    rotations = [rotation_of(base.rotary_emb, kind) for kind in kinds]
    return decoder(model, layers, rms_norm(base.embedding_norm), rotations=rotations)


def _attention(module: Any, window: int | None, rotation: int) -> Attention:
    own = attention(module, window=window, norms=head_norms(module), rotation=rotation)
    return own if module.g_proj is None else with_gates(own, module.g_proj, of_head=True)


def _behind(module: Any) -> Norm | None:
    return None if isinstance(module, nn.Identity) else rms_norm(module)


CLASSES = {"Lfm3ForCausalLM": describe}
