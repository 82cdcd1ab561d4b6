"""MiniMax-01: lightning attention beside plain one, experts, and layers that add to rows behind their norms."""

from __future__ import annotations

from typing import Any

import torch

from rapid_integrations.models.description import Decoder, Layer, NormedSums, NotDescribedError, Recurrence, RowsOf
from rapid_integrations.models.families.mixtral import experts
from rapid_integrations.models.families.parts import attention, decoder, rms_norm


def describe(model: Any) -> Decoder:
    """Describe a model.

    Raises:
        NotDescribedError: none of its layers has plain attention, or lightning attention has another activation.
    """
    config, base = model.config, model.base_model
    layers = []
    for each in base.layers:
        if each.block_type == "linear_attention":
            mixer: Any = _lightning(each.self_attn, config)
        else:
            mixer = attention(each.self_attn, window=config.sliding_window)
        layers.append(
            Layer(
                attention=mixer,
                mlp=experts(each.mlp, config),
                before_attention=rms_norm(each.input_layernorm),
                before_mlp=rms_norm(each.post_attention_layernorm),
                normed_sums=NormedSums(
                    (float(each.attn_alpha_factor), float(each.attn_beta_factor)),
                    (float(each.mlp_alpha_factor), float(each.mlp_beta_factor)),
                ),
            )
        )
    if all(each.attends is None for each in layers):
        raise NotDescribedError("none of its layers attends")
    return decoder(model, layers, rms_norm(base.norm))


def _lightning(module: Any, config: Any) -> Recurrence:
    if config.hidden_act not in ("silu", "swish"):
        raise NotDescribedError(f"its queries, keys and values have the activation {config.hidden_act}")
    heads, width = module.num_attention_heads, module.head_dim
    # A head's query, key and value lie together. A convolution of one row leaves them as they are.
    by_head = torch.arange(3 * heads * width, device="cpu").view(heads, 3, width)
    return Recurrence(
        inputs=(RowsOf(module.qkv_proj, by_head.transpose(0, 1).flatten()), module.output_gate),
        rates=(),
        out=module.out_proj,
        key_heads=heads,
        value_heads=heads,
        key_dim=width,
        value_dim=width,
        convolution=torch.ones(3 * heads * width, 1, 1, device=module.slope_rate.device),
        decay=module.get_slope_rate(module.slope_rate.device).flatten().log(),  # what it keeps is rounded to its dtype
        bias=torch.zeros(heads, device=module.slope_rate.device),
        norm=rms_norm(module.norm),
        skip=torch.zeros(heads, device=module.slope_rate.device),
        together=heads * width,
        gates_behind=True,
        sigmoid_gates=True,
    )


CLASSES = {"MiniMaxForCausalLM": describe}
