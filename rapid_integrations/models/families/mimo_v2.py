"""MiMo-V2: heads whose values are narrower than their keys, sinks, and twice as many heads of keys behind windows."""

from __future__ import annotations

from typing import Any

import torch

from rapid_integrations.kernels.layers import AttentionKind
from rapid_integrations.models.description import Attention, ColumnsOf, Decoder, NotDescribedError, RowsOf
from rapid_integrations.models.families.grouped_experts import grouped_experts
from rapid_integrations.models.families.parts import decoder, gated_mlp, layer, rms_norm, rotation_of


def describe(model: Any) -> Decoder:
    """Describe a model, whose values are filled up with zeros to the width of keys.

    Raises:
        NotDescribedError: values are wider than keys.
    """
    config, base = model.config, model.base_model
    if config.v_head_dim > config.head_dim:
        raise NotDescribedError(f"its values have {config.v_head_dim} numbers, and its keys {config.head_dim}")
    kinds = sorted(set(config.layer_types))
    layers = [
        layer(
            each,
            _attention(each.self_attn, config, kinds.index(config.layer_types[index])),
            grouped_experts(each.mlp, config) if hasattr(each.mlp, "experts") else gated_mlp(each.mlp, config),
        )
        for index, each in enumerate(base.layers)
    ]
    rotations = [rotation_of(base.rotary_emb, kind) for kind in kinds]
    return decoder(model, layers, rms_norm(base.norm), rotations=rotations)


def _attention(module: Any, config: Any, rotation: int) -> Attention:
    kv_heads = module.v_proj.out_features // module.v_head_dim
    return Attention(
        qkv=(module.q_proj, module.k_proj, RowsOf(module.v_proj, _filled_up(kv_heads, module))),
        out=ColumnsOf(module.o_proj, _filled_up(config.num_attention_heads, module)),
        scale=module.scaling,
        window=module.sliding_window,
        kind=AttentionKind(sinks=module.sinks),
        rotation=rotation,
        kv_heads=None if kv_heads == config.num_key_value_heads else kv_heads,
        factor=float(module.v_scale),
    )


def _filled_up(heads: int, module: Any) -> torch.Tensor:
    """Return the numbers of values of all heads, with -1 for each number that a key has more."""
    own = torch.arange(heads * module.v_head_dim, device="cpu").view(heads, -1)
    return torch.nn.functional.pad(own, (0, module.head_dim - module.v_head_dim), value=-1).flatten()


CLASSES = {"MiMoV2FlashForCausalLM": describe}
