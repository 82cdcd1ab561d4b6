"""GGUF files of Nemotron-H and Nemotron 3, whose blocks are a Mamba2, an attention, an MLP or experts.

A block with heads of keys is an attention, one with a width of an MLP is that or has experts, and others are a Mamba2.
Files do not say how small steps of a Mamba2 may be, and llama.cpp takes them as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rapid_integrations.models.gguf import mamba2
from rapid_integrations.models.gguf.architecture import ATTENTION, OUTER, Tensors, Told
from rapid_integrations.models.gguf.forms import count

_NO_STEP = 1e-30  # below all steps; transformers' class wants a number above 0
_PARTS = mamba2.Parts("mixer", "mamba_num_heads", "n_groups", "ssm_state_size", "mamba_head_dim", "conv_kernel")
_BLOCKS = {name: module.replace("self_attn.", "mixer.") for name, module in ATTENTION.items()} | {
    "attn_norm": "norm",
    "ssm_out": "mixer.out_proj",
}
NAMES = _BLOCKS | {"ffn_up": "mixer.up_proj", "ffn_down": "mixer.down_proj"}
"""The modules of a block without experts, by what files call them, but for those of Mamba2."""
WITH_EXPERTS = _BLOCKS | {
    "ffn_gate_inp": "mixer.gate",
    "exp_probs_b.bias": "mixer.gate.e_score_correction_bias",
    "ffn_up_shexp": "mixer.shared_experts.up_proj",
    "ffn_down_shexp": "mixer.shared_experts.down_proj",
}
MODULES_AROUND = OUTER | {"token_embd": "model.embeddings", "output_norm": "model.norm_f"}
PLAIN = frozenset({"mixer.gate"})
EPSILON = ("attention.layer_norm_rms_epsilon", "layer_norm_epsilon")
_SECOND_EPSILON = "attention.layer_norm_epsilon"  # which nothing is computed with, and files have
KEYS = frozenset({*mamba2.SSM, mamba2.POSITIONS, _SECOND_EPSILON})
FORMS = mamba2.forms_of_mixers(_PARTS)


def numbers_of(told: Told, tensors: Tensors) -> dict[str, Any]:
    """Return what a configuration has beside what all have, without experts.

    Raises:
        KeyError, TypeError: a number is left out, or contradicts another one.
    """
    return _numbers(told, tensors, "mlp")


def numbers_with_experts(told: Told, tensors: Tensors) -> dict[str, Any]:
    """Return what a configuration has beside what all have, with experts.

    Raises:
        KeyError, TypeError: a number is left out, or contradicts another one.
    """
    if told.get("expert_group_count", 1) > 1:
        raise TypeError("groups of experts, and nothing that says how many of them are taken")
    inner, shared = count(told, "expert_feed_forward_length"), count(told, "expert_shared_count")
    return _numbers(told, tensors, "moe") | {
        "n_routed_experts": told["expert_count"],
        "n_shared_experts": shared,
        "moe_intermediate_size": inner,
        "moe_shared_expert_intermediate_size": count(told, "expert_shared_feed_forward_length"),
        "routed_scaling_factor": told["expert_weights_scale"],
        "norm_topk_prob": told["expert_weights_norm"],
        "n_group": 1,
        "topk_group": 1,
        "moe_latent_size": None,
    }


KEYS_OF_EXPERTS = KEYS | {
    *("expert_group_count", "expert_shared_count", "expert_shared_feed_forward_length", "expert_weights_scale"),
    *("expert_weights_norm", "expert_group_used_count"),
}


def _numbers(told: Told, tensors: Tensors, behind: str) -> dict[str, Any]:
    heads, widths = (_list(told, name) for name in ("attention.head_count_kv", "feed_forward_length"))
    if told.get(_SECOND_EPSILON, told[EPSILON[0]]) != told[EPSILON[0]]:
        raise TypeError("norms have two epsilons")
    kinds = []
    for index, (keys, width) in enumerate(zip(heads, widths, strict=True)):
        if keys and width:
            raise TypeError(f"block {index} is an attention and an MLP")
        kinds.append("full_attention" if keys else behind if width else "linear_attention")
    if len(set(heads) - {0}) != 1 or len(set(widths) - {0}) > 1:
        raise TypeError("no block attends, or blocks of a kind have several widths")
    return mamba2.mixers_of(told, tensors, _PARTS) | {
        "layers_block_type": kinds,
        "intermediate_size": max(widths) or 1,
        "mlp_hidden_act": "relu2",
        "use_conv_bias": any(name.endswith(".ssm_conv1d.bias") for name in tensors),
        "time_step_min": _NO_STEP,
        "attention_bias": False,
        "mlp_bias": False,
        "use_bias": False,
    }


def _list(told: Told, key: str) -> Sequence[int]:
    found = told[key]
    if not isinstance(found, list) or len(found) != told["block_count"] or {type(each) for each in found} != {int}:
        raise TypeError(f"{key} is {found!r}")
    if min(found) < 0:
        raise TypeError(f"{key} is {found!r}")
    return found
