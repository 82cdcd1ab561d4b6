"""GGUF files of models with latent attention: DeepSeek V2 and V3, Kimi K2, GLM-4.7-Flash, MiniCPM3.

llama.cpp's converter calls all of them "deepseek2". It has the matrix behind the latent in two parts, of keys and of
values, and turns that of keys; earlier files have it as it is. It is computed in bfloat16 here, as the engine
multiplies with parts of it. Scores of experts are a softmax in DeepSeek V2, and corrected sigmoids in the others.

MiniCPM3 has no experts. Its factors and the width of its values are in no file: llama.cpp takes those of the published
model for granted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from rapid_integrations.models.gguf.architecture import MLP, NORMS_BEFORE, Architecture, Tensors, Told
from rapid_integrations.models.gguf.forms import Forms, count, require_shape
from rapid_integrations.models.gguf.tensors import MappedTensors

_SOFTMAX, _SIGMOID = 1, 2  # of `expert_gating_func`
_RANKS = {"query": "attention.q_lora_rank", "key": "attention.kv_lora_rank"}
_OF_HEADS = ("attention.key_length_mla", "attention.value_length_mla")
_LOG_MUL, _USUAL = "rope.scaling.yarn_log_multiplier", 0.1
_BOUNDS = {"rope.scaling.yarn_beta_fast": 32.0, "rope.scaling.yarn_beta_slow": 1.0}
_GROUPS = ("expert_group_count", "expert_group_used_count")
NAMES = (
    MLP
    | NORMS_BEFORE
    | {
        "attn_q": "self_attn.q_proj",
        "attn_q_a": "self_attn.q_a_proj",
        "attn_q_a_norm": "self_attn.q_a_layernorm",
        "attn_q_b": "self_attn.q_b_proj",
        "attn_kv_a_mqa": "self_attn.kv_a_proj_with_mqa",
        "attn_kv_a_norm": "self_attn.kv_a_layernorm",
        "attn_kv_b": "self_attn.kv_b_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_gate_inp": "mlp.gate",
        "exp_probs_b.bias": "mlp.gate.e_score_correction_bias",
        **{f"ffn_{part}_shexp": f"mlp.shared_experts.{part}_proj" for part in ("gate", "up", "down")},
    }
)
"""The modules of a layer, by what files call them, but for those of `part_of_layer`."""
PLAIN = frozenset({"mlp.gate", "self_attn.kv_b_proj"})
_NOT_OF_MINICPM = ("attn_q", "_inp", "_shexp", "exp_probs_b.bias")
KEYS = frozenset(
    {
        *(*_RANKS.values(), *_OF_HEADS, *_BOUNDS, *_GROUPS, _LOG_MUL),
        *("leading_dense_block_count", "expert_shared_count", "expert_gating_func", "expert_weights_scale"),
        *("expert_weights_norm", "nextn_predict_layers"),
    }
)


def numbers_of(told: Told, tensors: Tensors) -> dict[str, Any]:
    """Return what a configuration has beside what all have.

    Raises:
        KeyError, TypeError: a number is left out, contradicts another one, or is one of another model.
    """
    gating, heads = told.get("expert_gating_func", _SOFTMAX), count(told, "attention.head_count")
    corrected = any(name.endswith(".exp_probs_b.bias") for name in tensors)
    if gating not in (_SOFTMAX, _SIGMOID) or corrected != (gating == _SIGMOID):
        raise TypeError(f"expert_gating_func is {gating!r}, with corrections of scores or without")
    normalised = bool(told.get("expert_weights_norm", False))
    groups, taken = (told.get(key) or 1 for key in _GROUPS)
    own = {
        "num_key_value_heads": heads,
        "n_routed_experts": told["expert_count"],
        "n_shared_experts": count(told, "expert_shared_count"),
        "moe_intermediate_size": count(told, "expert_feed_forward_length"),
        "intermediate_size": told["feed_forward_length"],
        "first_k_dense_replace": told["leading_dense_block_count"],
        "routed_scaling_factor": told.get("expert_weights_scale") or 1.0,
        "norm_topk_prob": normalised,
        "n_group": groups,
        "topk_group": taken,
        "attention_bias": False,
        "rope_parameters": _rope(told),
        **heads_of(told),
    }
    if gating == _SIGMOID:
        return own | {"rope_interleave": True}
    if normalised:
        raise TypeError("weights of experts are divided by their sum, and their scores are a softmax")
    method = "greedy" if groups == 1 else "group_limited_greedy"
    return own | {"architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2", "topk_method": method}


def heads_of(told: Told) -> dict[str, Any]:
    """Return the numbers of a head, and of what its queries and keys are computed from.

    Raises:
        KeyError, TypeError: they contradict each other.
    """
    rank, turned = count(told, _RANKS["key"]), count(told, "rope.dimension_count")
    key, value = count(told, "attention.key_length"), count(told, "attention.value_length")
    if _OF_HEADS[0] in told:
        if (key, value) != (rank + turned, rank):
            raise TypeError(f"keys and values of {key} and {value} numbers, and latents of {rank}")
        key, value = (count(told, name) for name in _OF_HEADS)
    if key <= turned:
        raise TypeError(f"{turned} of {key} numbers are rotated")
    return {
        "kv_lora_rank": rank,
        "q_lora_rank": count(told, _RANKS["query"]) if told.get(_RANKS["query"]) else None,
        "qk_rope_head_dim": turned,
        "qk_nope_head_dim": key - turned,
        "qk_head_dim": key,
        "v_head_dim": value,
    }


def _rope(told: Told) -> dict[str, Any]:
    """Return the angles. Files say one factor for both that models have, which are equal.

    Raises:
        KeyError, TypeError: they are stretched in a way that is not known.
    """
    rope = {"rope_type": "default", "rope_theta": told.get("rope.freq_base", 10000.0)}
    kind = told.get("rope.scaling.type", "none")
    if kind == "none":
        return rope
    factor, multiplier = told["rope.scaling.factor"], told[_LOG_MUL]
    if kind != "yarn" or not factor > 1 or not multiplier > 0 or any(told.get(k, v) != v for k, v in _BOUNDS.items()):
        raise TypeError(f"angles are stretched by {kind!r}, {factor!r} and {multiplier!r}")
    own = round(multiplier / _USUAL, 5)
    return rope | {
        "rope_type": "yarn",
        "factor": float(factor),
        "original_max_position_embeddings": count(told, "rope.scaling.original_context_length"),
        **{"beta_fast": 32.0, "beta_slow": 1.0, "mscale": own, "mscale_all_dim": own},
    }


def numbers_of_minicpm(told: Told, tensors: Tensors) -> dict[str, Any]:
    """Return what a configuration of MiniCPM3 has beside what all have.

    Raises:
        KeyError, TypeError: a number is left out, or contradicts another one.
    """
    heads, width = count(told, "attention.head_count"), count(told, "embedding_length")
    if width % heads or told.get("attention.head_count_kv", heads) != heads:
        raise TypeError(f"{heads} heads of {width} numbers, or heads share keys")
    value = {"attention.value_length": width // heads}
    return {
        "attention_bias": False,
        "mlp_bias": False,
        **{"scale_emb": 12, "scale_depth": 1.4, "dim_model_base": 256},
        **heads_of({**value, **told}),
    }


def part_of_layer(
    tensors: MappedTensors, name: str, config: Mapping[str, Any], dtype: torch.dtype, in_blocks: bool
) -> dict[str, Any] | None:
    """Return the matrix behind the latent, of which a file has two parts; None for other tensors. See `PartOfLayer`."""
    stem, _, part = name.partition(".attn_")
    if part == "v_b.weight" and f"{stem}.attn_k_b.weight" in tensors.tensors:
        return {}
    if part != "k_b.weight" or f"{stem}.attn_v_b.weight" not in tensors.tensors:
        return None
    heads, rank = config["num_attention_heads"], config["kv_lora_rank"]
    require_shape(tensors, name, (heads, rank, config["qk_nope_head_dim"]))
    require_shape(tensors, f"{stem}.attn_v_b.weight", (heads, config["v_head_dim"], rank))
    keys, values = (tensors.numbers(f"{stem}.attn_{each}_b.weight", dtype) for each in ("k", "v"))
    return {"self_attn.kv_b_proj.weight": torch.cat([keys.transpose(1, 2), values], dim=1).flatten(0, 1)}


ARCHITECTURES = {
    "deepseek2": Architecture(
        "DeepseekV3ForCausalLM",
        "deepseek_v3",
        numbers_of,
        NAMES,
        plain=PLAIN,
        experts="mlp.experts",
        keys=KEYS,
        forms=Forms(part_of_layer, ()),
        latent=True,
    ),
}
"""By the name that GGUF gives it."""

WITHOUT_EXPERTS = {
    "minicpm3": Architecture(
        "MiniCPM3ForCausalLM",
        "minicpm3",
        numbers_of_minicpm,
        {name: module for name, module in NAMES.items() if not name.endswith(_NOT_OF_MINICPM)},
        plain=PLAIN,
        keys=frozenset(_RANKS.values()),
        long_rope=True,
        forms=Forms(part_of_layer, ()),
        latent=True,
    ),
}
"""The same of models without experts."""
