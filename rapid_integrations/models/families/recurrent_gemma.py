"""RecurrentGemma (Griffin): real-gated linear recurrent units beside attentions with a window."""

from __future__ import annotations

from typing import Any

import torch

from rapid_integrations.models.description import Attention, Decoder, GatedUnit, Layer, NotDescribedError, Recurrence
from rapid_integrations.models.families.parts import attention, gated_mlp, rms_norm_plus_one, rotation_of, rounded
from rapid_integrations.models.families.state_heads import heads_of


def describe(model: Any) -> Decoder:
    """Describe a model.

    Raises:
        NotDescribedError: none of its layers attends, or gates have another activation than the tanh form of GELU.
    """
    config, base = model.config, model.base_model
    if config.hidden_activation not in ("gelu_pytorch_tanh", "gelu_new"):
        raise NotDescribedError(f"the gates of its recurrences have the activation {config.hidden_activation}")
    layers = [
        Layer(
            _mixer(each.temporal_block, config),
            gated_mlp(each.mlp_block, config, "hidden_activation"),
            rms_norm_plus_one(each.temporal_pre_norm),
            rms_norm_plus_one(each.channel_pre_norm),
        )
        for each in base.layers
    ]
    attending = next((each.temporal_block for each in base.layers if hasattr(each.temporal_block, "q_proj")), None)
    if attending is None:
        raise NotDescribedError("none of its layers attends")
    return Decoder(
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        embedding=base.embed_tokens,
        embedding_scale=rounded(config.hidden_size**0.5, torch.bfloat16),
        layers=layers,
        modules=list(base.layers),
        norm=rms_norm_plus_one(base.final_norm),
        head=model.lm_head,
        rotations=[rotation_of(attending.rotary_emb)],
        logit_softcap=float(config.logits_soft_cap),
    )


def _mixer(module: Any, config: Any) -> Attention | Recurrence:
    if hasattr(module, "q_proj"):
        return attention(module, window=config.sliding_window)
    unit = module.rg_lru
    heads, together = heads_of(module.lru_width)
    return Recurrence(
        inputs=(module.linear_x, module.linear_y),
        rates=(),
        out=module.linear_out,
        key_heads=1,
        value_heads=heads,
        key_dim=1,
        value_dim=together,
        convolution=module.conv_1d.weight,
        decay=unit.recurrent_param,
        bias=unit.recurrent_gate_bias,
        norm=None,
        convolution_bias=module.conv_1d.bias,
        unit=GatedUnit(unit.input_gate_weight, unit.input_gate_bias, unit.recurrent_gate_weight),
        gelu_gates=True,
    )


CLASSES = {"RecurrentGemmaForCausalLM": describe}
