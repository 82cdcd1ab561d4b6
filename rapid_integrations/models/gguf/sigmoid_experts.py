"""GGUF files of dots.llm1, K-EXAONE and AFMoE (Trinity), whose experts are chosen by sigmoids and corrections."""

from __future__ import annotations

from typing import Any

from rapid_integrations.models.gguf.architecture import (
    ATTENTION,
    HEAD_NORMS,
    LLAMA,
    MLP,
    Architecture,
    Tensors,
    Told,
    whole_heads,
)
from rapid_integrations.models.gguf.forms import FULL, PATTERN, WINDOW, Forms, count, layer_types, no_part

_SIGMOID = 2  # of `expert_gating_func`
_GROUPS = ("expert_group_count", "expert_group_used_count")
_DENSE, _SHARED, _SHARED_WIDTH = (
    *("leading_dense_block_count", "expert_shared_count", "expert_shared_feed_forward_length"),
)
_INNER, _FURTHER = "expert_feed_forward_length", "nextn_predict_layers"
_KEYS = frozenset({"expert_gating_func", "expert_weights_scale", "expert_weights_norm", _DENSE, _SHARED, *_GROUPS})
_SHARED_EXPERTS = {f"ffn_{part}_shexp": f"mlp.shared_experts.{part}_proj" for part in ("gate", "up", "down")}
_LIKE_GLM = (
    LLAMA
    | HEAD_NORMS
    | _SHARED_EXPERTS
    | {"ffn_gate_inp": "mlp.gate", "exp_probs_b.bias": "mlp.gate.e_score_correction_bias"}
)
_AFMOE = (
    ATTENTION
    | HEAD_NORMS
    | MLP
    | _SHARED_EXPERTS
    | {
        "attn_gate": "self_attn.gate_proj",
        "attn_norm": "input_layernorm",
        "post_attention_norm": "post_attention_layernorm",
        "ffn_norm": "pre_mlp_layernorm",
        "post_ffw_norm": "post_mlp_layernorm",
        "ffn_gate_inp": "mlp.router.gate",
        "exp_probs_b.bias": "mlp.expert_bias",
    }
)


def _dense(told: Told) -> int:
    """Return how many layers have no experts: the first ones.

    Raises:
        KeyError, TypeError: it is left out, or no such number.
    """
    dense = told[_DENSE]
    if type(dense) is not int or not 0 <= dense < told["block_count"]:
        raise TypeError(f"{_DENSE} is {dense!r}")
    return dense


def _routing(told: Told) -> dict[str, Any]:
    """Return how experts are chosen, and what is done to their weights.

    Raises:
        TypeError: they are not chosen by sigmoids.
    """
    if told.get("expert_gating_func", _SIGMOID) != _SIGMOID:
        raise TypeError(f"expert_gating_func is {told['expert_gating_func']!r}")
    groups, taken = (told.get(key) or 1 for key in _GROUPS)
    return {
        "routed_scaling_factor": told.get("expert_weights_scale") or 1.0,  # llama.cpp takes 0 for 1
        "norm_topk_prob": bool(told.get("expert_weights_norm", False)),
        "n_group": groups,
        "topk_group": taken,
    }


def _dots1(told: Told, tensors: Tensors) -> dict[str, Any]:
    return (
        whole_heads(told)
        | _routing(told)
        | {
            "n_routed_experts": told["expert_count"],
            "n_shared_experts": count(told, _SHARED),
            "moe_intermediate_size": count(told, _INNER),
            "intermediate_size": told["feed_forward_length"],
            "first_k_dense_replace": _dense(told),
            "sliding_window": None,
            "layer_types": [FULL] * told["block_count"],
            "attention_bias": False,
        }
    )


def _exaone(told: Told, tensors: Tensors) -> dict[str, Any]:
    # Layers that predict further tokens are among the blocks, and not in the pattern.
    layers = told["block_count"] - told.get(_FURTHER, 0)
    inner, shared, dense = count(told, _INNER), count(told, _SHARED), _dense(told)
    if told.get(_SHARED_WIDTH, inner * shared) != inner * shared:
        raise TypeError(f"{shared} shared experts of other widths than {inner}")
    pattern = told.get(PATTERN)
    own = {"block_count": layers} | ({PATTERN: pattern[:layers]} if isinstance(pattern, list) else {})
    return _routing(told) | {
        "num_experts": told["expert_count"],
        "num_shared_experts": shared,
        "moe_intermediate_size": inner,
        "intermediate_size": told["feed_forward_length"],
        "first_k_dense_replace": dense,
        "mlp_layer_types": ["dense" if index < dense else "sparse" for index in range(layers)],
        "sliding_window": count(told, WINDOW),
        "layer_types": layer_types({**told, **own}, 4),
    }


def _afmoe(told: Told, tensors: Tensors) -> dict[str, Any]:
    # llama.cpp takes for granted that every fourth layer sees all keys, and the factor on embeddings.
    routing = _routing(told)
    if not routing["norm_topk_prob"] or routing["n_group"] != 1:
        raise TypeError("weights of experts are not divided by their sum, or experts are in groups")
    return {
        "num_experts": told["expert_count"],
        "num_shared_experts": count(told, _SHARED),
        "moe_intermediate_size": count(told, _INNER),
        "intermediate_size": told["feed_forward_length"],
        "num_dense_layers": _dense(told),
        "route_scale": routing["routed_scaling_factor"],
        "sliding_window": count(told, WINDOW),
        "layer_types": layer_types(told, 4),
        "mup_enabled": True,
        "attention_bias": False,
    }


ARCHITECTURES = {
    "dots1": Architecture(
        "Dots1ForCausalLM",
        "dots1",
        _dots1,
        _LIKE_GLM,
        plain=frozenset({"mlp.gate"}),
        experts="mlp.experts",
        keys=_KEYS,
    ),
    "exaone-moe": Architecture(
        "ExaoneMoeForCausalLM",
        "exaone_moe",
        _exaone,
        _LIKE_GLM,
        plain=frozenset({"mlp.gate"}),
        experts="mlp.experts",
        keys=_KEYS | {_SHARED_WIDTH, _FURTHER, WINDOW, PATTERN},
    ),
    "afmoe": Architecture(
        "AfmoeForCausalLM",
        "afmoe",
        _afmoe,
        _AFMOE,
        plain=frozenset({"mlp.router.gate"}),
        experts="mlp.experts",
        keys=_KEYS | {WINDOW},
        forms=Forms(no_part, ("mlp.expert_bias",)),
    ),
}
"""By the names that GGUF gives them."""
