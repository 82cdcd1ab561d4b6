"""How the metadata of GGUF files says what transformers' configurations of families with experts say.

A family is one function and one entry of `ARCHITECTURES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from rapid_integrations.models.gguf import (
    gemma4,
    hybrids,
    kimi_linear,
    latent,
    llama4,
    mamba2,
    near_llama,
    nemotron_h,
    shared_mlp,
    short_convolutions,
    sigmoid_experts,
)
from rapid_integrations.models.gguf.architecture import (
    GRANITE_FACTORS,
    HEAD_NORMS,
    LLAMA,
    Architecture,
    Tensors,
    Told,
    granite_factors,
    whole_heads,
)
from rapid_integrations.models.gguf.forms import Forms, count
from rapid_integrations.models.gguf.tensors import MappedTensors

_SHARED_WIDTH = "expert_shared_feed_forward_length"
_SIGMOID = 2  # of `expert_gating_func`
_GATE = LLAMA | {"ffn_gate_inp": "mlp.gate"}
_PLAIN = frozenset({"mlp.gate"})
_EXPERTS = "mlp.experts"
_SECOND_NORM = {"post_attention_norm": "post_attention_layernorm"}


def _qwen3(told: Told, tensors: Tensors) -> dict[str, Any]:
    # llama.cpp divides by the sum of the weights of the experts that are taken; the file does not say it.
    inner = told["expert_feed_forward_length"]
    own = {"num_experts": told["expert_count"], "norm_topk_prob": True, "moe_intermediate_size": inner}
    return own | {"intermediate_size": told.get("feed_forward_length", inner), "attention_bias": False}


def _qwen3_vl(told: Told, tensors: Tensors) -> dict[str, Any]:
    near_llama.require_sections(told)
    return _qwen3(told, tensors)


def _ernie4_5(told: Told, tensors: Tensors) -> dict[str, Any]:
    # llama.cpp divides by the sum of the weights of the experts that are taken, and chooses by corrected scores.
    inner = count(told, "expert_feed_forward_length")
    shared = told.get("expert_shared_count", 0)
    if told.get("expert_shared_feed_forward_length", inner * shared) != inner * shared:
        raise TypeError(f"{shared} shared experts of other widths than {inner}")
    dense = told["leading_dense_block_count"]
    if type(dense) is not int or not 0 <= dense < told["block_count"]:
        raise TypeError(f"leading_dense_block_count is {dense!r}")
    return {
        "num_experts": told["expert_count"],
        "moe_intermediate_size": inner,
        "intermediate_size": told["feed_forward_length"],
        "moe_num_shared_experts": shared,
        "moe_layer_start_index": dense,
        "moe_layer_end_index": told["block_count"] - 1,
        "moe_layer_interval": 1,
        "moe_norm_min": 1e-12,
        "use_bias": False,
    }


def _hunyuan(told: Told, tensors: Tensors) -> dict[str, Any]:
    inner = count(told, "expert_feed_forward_length")
    widths = {told["feed_forward_length"], told.get(_SHARED_WIDTH, inner)}
    if widths != {inner} or told.get("expert_shared_count", 1) != 1:
        raise TypeError("experts, the shared one and an MLP have several widths, or more experts are shared")
    if told.get("rope.scaling.type", "none") != "none" or told.get("rope.scaling.factor", 1.0) != 1.0:
        raise TypeError("its angles are stretched otherwise than by another base")
    own = {"num_experts": told["expert_count"], "moe_topk": told["expert_used_count"]}
    return own | {"intermediate_size": inner, "attention_bias": False}


def _minimax_m2(told: Told, tensors: Tensors) -> dict[str, Any]:
    if told.get("expert_gating_func", _SIGMOID) != _SIGMOID:
        raise TypeError(f"expert_gating_func is {told['expert_gating_func']!r}")
    return {"num_local_experts": told["expert_count"], "intermediate_size": told["expert_feed_forward_length"]}


def _qwen2(told: Told, tensors: Tensors) -> dict[str, Any]:
    inner = told["expert_feed_forward_length"]
    shared = told["expert_shared_feed_forward_length"]
    own = {"num_experts": told["expert_count"], "norm_topk_prob": False, "moe_intermediate_size": inner}
    return own | {
        "shared_expert_intermediate_size": shared,
        "intermediate_size": told.get("feed_forward_length", shared),
        "qkv_bias": "blk.0.attn_q.bias" in tensors,
    }


def _mixtral(told: Told, tensors: Tensors) -> dict[str, Any]:
    inner = told.get("expert_feed_forward_length", told["feed_forward_length"])
    return {"num_local_experts": told["expert_count"], "intermediate_size": inner, "sliding_window": None}


def _olmoe(told: Told, tensors: Tensors) -> dict[str, Any] | None:
    inner = told.get("expert_feed_forward_length", told["feed_forward_length"])
    own = {"num_experts": told["expert_count"], "intermediate_size": inner, "norm_topk_prob": False}
    # Its class has no width of heads of its own.
    whole = told["embedding_length"] // told["attention.head_count"]
    return own | {"clip_qkv": None} if told.get("attention.key_length", whole) == whole else None


def _gpt_oss(told: Told, tensors: Tensors) -> dict[str, Any]:
    inner = told["expert_feed_forward_length"]
    theta = told.get("rope.freq_base", 150000.0)
    rope = {"rope_type": "default", "rope_theta": theta}
    if told.get("rope.scaling.type") == "yarn":  # whose bounds are not rounded to whole dimensions
        more = {"beta_fast": 32.0, "beta_slow": 1.0, "truncate": False, "factor": told["rope.scaling.factor"]}
        original = told["rope.scaling.original_context_length"]
        rope = rope | more | {"rope_type": "yarn", "original_max_position_embeddings": original}
    kinds = ["sliding_attention", "full_attention"]
    return {
        "num_local_experts": told["expert_count"],
        "intermediate_size": inner,
        "sliding_window": told["attention.sliding_window"],
        "layer_types": [kinds[index % 2] for index in range(told["block_count"])],
        "attention_bias": True,
        "rope_parameters": rope,
    }


def _glm4(told: Told, tensors: Tensors) -> dict[str, Any] | None:
    if told.get("expert_gating_func", _SIGMOID) != _SIGMOID:
        return None
    return {
        "n_routed_experts": told["expert_count"],
        "n_shared_experts": told["expert_shared_count"],
        "moe_intermediate_size": told["expert_feed_forward_length"],
        "intermediate_size": told["feed_forward_length"],
        "first_k_dense_replace": told["leading_dense_block_count"],
        "routed_scaling_factor": told.get("expert_weights_scale", 1.0),
        "norm_topk_prob": bool(told.get("expert_weights_norm", False)),
        "n_group": told.get("expert_group_count", 1),
        "topk_group": told.get("expert_group_used_count", 1),
        "use_qk_norm": "blk.0.attn_q_norm.weight" in tensors,
        "attention_bias": "blk.0.attn_q.bias" in tensors,
    }


def _granite(told: Told, tensors: Tensors) -> dict[str, Any] | None:
    whole = told["embedding_length"] // told["attention.head_count"]
    if told.get("attention.key_length", whole) != whole:
        return None
    return {
        "num_local_experts": told["expert_count"],
        "intermediate_size": told.get("expert_feed_forward_length", told["feed_forward_length"]),
    } | granite_factors(told)


def _granite_shared(told: Told, tensors: Tensors) -> dict[str, Any] | None:
    own = _granite(told, tensors)
    return None if own is None else own | {"shared_intermediate_size": count(told, _SHARED_WIDTH)}


def _qwen3_next(told: Told, tensors: Tensors) -> dict[str, Any]:
    return _with_shared(told) | hybrids.numbers_of(told, sections=False)


def _qwen35(told: Told, tensors: Tensors) -> dict[str, Any]:
    return _with_shared(told) | hybrids.numbers_of(told, sections=True)


def _lfm2(told: Told, tensors: Tensors) -> dict[str, Any]:
    # llama.cpp divides by the sum of the weights of the experts that are taken; the file does not say it.
    if told["expert_gating_func"] != _SIGMOID:
        raise TypeError(f"expert_gating_func is {told['expert_gating_func']!r}")
    dense = told.get("leading_dense_block_count", 0)
    if type(dense) is not int or not 0 <= dense < told["block_count"]:
        raise TypeError(f"leading_dense_block_count is {dense!r}")
    return (
        short_convolutions.numbers_of(told)
        | {
            "num_experts": told["expert_count"],
            "moe_intermediate_size": told["expert_feed_forward_length"],
            "intermediate_size": told["feed_forward_length"],
            "num_dense_layers": dense,
            "norm_topk_prob": True,
            "use_expert_bias": True,
            "routed_scaling_factor": 1.0,
        }
        | whole_heads(told)
    )


def _granite4(told: Told, tensors: Tensors) -> dict[str, Any]:
    return mamba2.numbers_of(told, tensors) | {
        "num_local_experts": told["expert_count"],
        "intermediate_size": told.get("expert_feed_forward_length", told["feed_forward_length"]),
        "shared_intermediate_size": told["expert_shared_feed_forward_length"],
    }


def _gemma4(told: Told, tensors: Tensors) -> dict[str, Any]:
    return gemma4.numbers_of(told, tensors) | {
        "enable_moe_block": True,
        "num_experts": told["expert_count"],
        "top_k_experts": told["expert_used_count"],
        "moe_intermediate_size": told["expert_feed_forward_length"],
    }


def _with_shared(told: Told) -> dict[str, Any]:
    shared = told["expert_shared_feed_forward_length"]
    own = {"num_experts": told["expert_count"], "norm_topk_prob": True, "shared_expert_intermediate_size": shared}
    inner = told["expert_feed_forward_length"]
    return own | {"moe_intermediate_size": inner, "intermediate_size": told.get("feed_forward_length", inner)}


def _shared(module: str) -> dict[str, str]:
    return {f"ffn_{part}_shexp": f"mlp.{module}.{part}_proj" for part in ("gate", "up", "down")}


_SHARED_EXPERT = _shared("shared_expert") | {"ffn_gate_inp_shexp": "mlp.shared_expert_gate"}


def _hybrid(class_name: str, model_type: str, own: Callable[[Told, Tensors], dict[str, Any]]) -> Architecture:
    return Architecture(
        class_name,
        model_type,
        own,
        hybrids.NAMES | _SHARED_EXPERT | {"ffn_gate_inp": "mlp.gate"},
        plain=hybrids.PLAIN | {"mlp.gate", "mlp.shared_expert_gate"},
        experts=_EXPERTS,
        keys=hybrids.KEYS | {"expert_shared_feed_forward_length"},
        partial=True,
        norm_offset=1.0,
        forms=hybrids.FORMS,
    )


_STATICS = "mlp.gate.moe_statics.e_score_correction_bias"


def _as_a_row(
    tensors: MappedTensors, name: str, config: Mapping[str, Any], dtype: torch.dtype, in_blocks: bool
) -> dict[str, Any] | None:
    """Return corrections of scores, (N,) in files, as (1, N); None for any other tensor. See `PartOfLayer`."""
    if name.split(".", 2)[2] != "exp_probs_b.bias":
        return None
    return {_STATICS: tensors.numbers(name, torch.float32).view(1, -1)}


_OF_OTHER_MODULES = (
    latent.ARCHITECTURES | kimi_linear.ARCHITECTURES | llama4.ARCHITECTURES | sigmoid_experts.ARCHITECTURES
)
ARCHITECTURES = _OF_OTHER_MODULES | {
    "qwen3vlmoe": Architecture(
        "Qwen3MoeForCausalLM",
        "qwen3_moe",
        _qwen3_vl,
        _GATE | HEAD_NORMS,
        plain=_PLAIN,
        experts=_EXPERTS,
        keys=near_llama.OF_PICTURES,
    ),
    "ernie4_5-moe": Architecture(
        "Ernie4_5_MoeForCausalLM",
        "ernie4_5_moe",
        _ernie4_5,
        _GATE | _shared("shared_experts"),
        plain=_PLAIN,
        experts=_EXPERTS,
        keys=frozenset({"leading_dense_block_count", "expert_shared_count", "expert_shared_feed_forward_length"}),
        forms=Forms(_as_a_row, (_STATICS,)),
    ),
    "hunyuan-moe": Architecture(
        "HunYuanMoEV1ForCausalLM",
        "hunyuan_v1_moe",
        _hunyuan,
        LLAMA | near_llama.NORMS_OF_QUERIES | {"ffn_gate_inp": "mlp.gate.wg"} | _shared("shared_mlp"),
        plain=frozenset({"mlp.gate.wg"}),
        experts=_EXPERTS,
        keys=frozenset({_SHARED_WIDTH, "expert_shared_count"}),
    ),
    "minimax-m2": Architecture(
        "MiniMaxM2ForCausalLM",
        "minimax_m2",
        _minimax_m2,
        _GATE | HEAD_NORMS | {"exp_probs_b.bias": "mlp.e_score_correction_bias"},
        plain=_PLAIN,
        experts=_EXPERTS,
        keys=frozenset({"expert_gating_func"}),
        partial=True,
    ),
    "qwen3moe": Architecture(
        "Qwen3MoeForCausalLM", "qwen3_moe", _qwen3, _GATE | HEAD_NORMS, plain=_PLAIN, experts=_EXPERTS
    ),
    "qwen2moe": Architecture(
        "Qwen2MoeForCausalLM",
        "qwen2_moe",
        _qwen2,
        _GATE | _SHARED_EXPERT,
        plain=frozenset({"mlp.gate", "mlp.shared_expert_gate"}),
        experts=_EXPERTS,
        keys=frozenset({"expert_shared_feed_forward_length"}),
    ),
    "llama": Architecture(
        "MixtralForCausalLM", "mixtral", _mixtral, _GATE, plain=_PLAIN, experts=_EXPERTS, interleaved=True
    ),
    "olmoe": Architecture("OlmoeForCausalLM", "olmoe", _olmoe, _GATE | HEAD_NORMS, plain=_PLAIN, experts=_EXPERTS),
    "gpt-oss": Architecture(
        "GptOssForCausalLM",
        "gpt_oss",
        _gpt_oss,
        LLAMA | {"ffn_gate_inp": "mlp.router", "attn_sinks.weight": "self_attn.sinks"} | _SECOND_NORM,
        plain=frozenset({"mlp.router"}),
        experts=_EXPERTS,
        keys=frozenset({"attention.sliding_window"}),
    ),
    "glm4moe": Architecture(
        "Glm4MoeForCausalLM",
        "glm4_moe",
        _glm4,
        _GATE
        | HEAD_NORMS
        | _SECOND_NORM
        | _shared("shared_experts")
        | {"exp_probs_b.bias": "mlp.gate.e_score_correction_bias"},
        plain=_PLAIN,
        experts=_EXPERTS,
        keys=frozenset(
            {
                *("expert_gating_func", "expert_shared_count", "leading_dense_block_count", "expert_weights_scale"),
                *("expert_weights_norm", "expert_group_count", "expert_group_used_count", "nextn_predict_layers"),
            }
        ),
        partial=True,
    ),
    "granitemoe": Architecture(
        "GraniteMoeForCausalLM",
        "granitemoe",
        _granite,
        LLAMA | {"ffn_gate_inp": "block_sparse_moe.router"},
        plain=frozenset({"block_sparse_moe.router"}),
        experts="block_sparse_moe.experts",
        keys=GRANITE_FACTORS,
        interleaved=True,
    ),
    "lfm2moe": Architecture(
        "Lfm2MoeForCausalLM",
        "lfm2_moe",
        _lfm2,
        short_convolutions.NAMES
        | {"ffn_gate_inp": "feed_forward.gate", "exp_probs_b.bias": "feed_forward.expert_bias"},
        plain=frozenset({"feed_forward.gate"}),
        experts="feed_forward.experts",
        keys=short_convolutions.KEYS | {"expert_gating_func", "leading_dense_block_count"},
        epsilon=short_convolutions.EPSILON,
        forms=short_convolutions.FORMS,
        some_attend=True,
        outer=short_convolutions.OUTER,
    ),
    "gemma4": Architecture(
        "Gemma4ForCausalLM",
        "gemma4_text",
        _gemma4,
        gemma4.WITH_EXPERTS,
        plain=gemma4.PLAIN,
        experts="experts",
        keys=gemma4.KEYS,
        forms=gemma4.FORMS,
        by_layer=True,
        proportional=True,
        outer=gemma4.OUTER,
    ),
    "nemotron_h_moe": Architecture(
        "NemotronHForCausalLM",
        "nemotron_h",
        nemotron_h.numbers_with_experts,
        nemotron_h.WITH_EXPERTS,
        plain=nemotron_h.PLAIN,
        experts="mixer.experts",
        keys=nemotron_h.KEYS_OF_EXPERTS,
        epsilon=nemotron_h.EPSILON,
        forms=nemotron_h.FORMS,
        some_attend=True,
        outer=nemotron_h.MODULES_AROUND,
    ),
    "granitehybrid": Architecture(
        "GraniteMoeHybridForCausalLM",
        "granitemoehybrid",
        _granite4,
        mamba2.WITH_EXPERTS,
        plain=mamba2.PLAIN,
        experts="block_sparse_moe.experts",
        keys=mamba2.KEYS,
        interleaved=True,
        forms=mamba2.FORMS,
        some_attend=True,
    ),
    "qwen3next": _hybrid("Qwen3NextForCausalLM", "qwen3_next", _qwen3_next),
    "qwen35moe": _hybrid("Qwen3_5MoeForCausalLM", "qwen3_5_moe_text", _qwen35),
}
"""By the names that GGUF gives them. A file of "llama" is one of Mixtral if it says how many experts there are."""

WITH_SHARED = {
    "granitemoe": Architecture(
        "GraniteMoeSharedForCausalLM",
        "granitemoeshared",
        _granite_shared,
        LLAMA | {"ffn_gate_inp": "block_sparse_moe.router"} | shared_mlp.BESIDE_EXPERTS,
        plain=frozenset({"block_sparse_moe.router"}),
        experts="block_sparse_moe.experts",
        keys=GRANITE_FACTORS | {_SHARED_WIDTH},
        interleaved=True,
        forms=shared_mlp.FORMS,
    ),
}
"""The same for files of which another model is meant if they say the width of an MLP beside the experts."""
