"""What the metadata of GGUF files says of families with LayerNorm.

They are Command R, OLMo 1, GPT-NeoX (Pythia), Phi-1 to Phi-2, StableLM, Nemotron 3 and 4, and Jais 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isclose
from typing import Any

import torch
from torch import nn

from rapid_integrations.models.gguf import fused_qkv
from rapid_integrations.models.gguf.architecture import (
    ATTENTION,
    HEAD_NORMS,
    LLAMA,
    MLP,
    NORMS_BEFORE,
    OUTER,
    Architecture,
    Tensors,
    Told,
    whole_heads,
)
from rapid_integrations.models.gguf.forms import Forms, no_part

_EPSILON = "attention.layer_norm_epsilon"
_USUAL = (_EPSILON, "layer_norm_eps")
_PARALLEL = "use_parallel_residual"
_UNGATED = ATTENTION | NORMS_BEFORE | {"ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
_PHI = {name: module for name, module in (ATTENTION | NORMS_BEFORE).items() if name != "ffn_norm"} | {
    **{"attn_output": "self_attn.dense", "ffn_up": "mlp.fc1", "ffn_down": "mlp.fc2"},
}
_NEOX = NORMS_BEFORE | {
    "attn_qkv": "attention.qkv_proj",
    "attn_output": "attention.dense",
    "ffn_up": "mlp.dense_h_to_4h",
    "ffn_down": "mlp.dense_4h_to_h",
}
_NORMS = frozenset({"model.norm", *NORMS_BEFORE.values()})


def _command_r(told: Told, tensors: Tensors) -> dict[str, Any]:
    own = {"logit_scale": told["logit_scale"], "use_qk_norm": "blk.0.attn_q_norm.weight" in tensors}
    return own | {"attention_bias": False} | whole_heads(told)


def _olmo(told: Told, tensors: Tensors) -> dict[str, Any]:
    if not isclose(told[_EPSILON], 1e-5, rel_tol=1e-4):
        raise TypeError(f"{_EPSILON} is {told[_EPSILON]!r}")
    return {"clip_qkv": None, "attention_bias": False} | whole_heads(told)


def _neox(told: Told, tensors: Tensors) -> dict[str, Any]:
    if (
        type(told[_PARALLEL]) is not bool
        or told.get("attention.head_count_kv", told["attention.head_count"]) != (told["attention.head_count"])
    ):
        raise TypeError(f"{_PARALLEL} is {told[_PARALLEL]!r}, or heads share keys")
    own = {_PARALLEL: told[_PARALLEL], "attention_bias": "blk.0.attn_qkv.bias" in tensors, "hidden_act": "gelu"}
    return own | whole_heads(told)


def _phi(told: Told, tensors: Tensors) -> dict[str, Any]:
    return {"hidden_act": "gelu_new", "qk_layernorm": False} | whole_heads(told)


def _stablelm(told: Told, tensors: Tensors) -> dict[str, Any]:
    # llama.cpp goes by the tensors: converters say of all models that both parts read the same.
    return {
        _PARALLEL: "blk.0.ffn_norm.weight" not in tensors,
        "use_qkv_bias": "blk.0.attn_q.bias" in tensors,
        "qk_layernorm": False,
    } | whole_heads(told)


def _nemotron(told: Told, tensors: Tensors) -> dict[str, Any]:
    return {"hidden_act": "relu2", "attention_bias": False, "mlp_bias": False}


def _jais2(told: Told, tensors: Tensors) -> dict[str, Any]:
    return {"hidden_act": "relu2", "attention_bias": True, "mlp_bias": True} | whole_heads(told)


def _one_matrix(model: Any) -> None:
    """Put a module for queries, keys and values, one behind the other, in the place of one that has them by heads."""
    for layer in model.base_model.layers:
        own = layer.attention
        whole = own.query_key_value
        dtype, device = whole.weight.dtype, whole.weight.device
        bias = whole.bias is not None
        own.qkv_proj = nn.Linear(whole.in_features, whole.out_features, bias=bias, dtype=dtype, device=device)
        del own.query_key_value


def _by_heads(config: Mapping[str, Any], weights: Mapping[str, Any]) -> dict[str, Any]:
    """Return weights, all of them numbers, under transformers' names, and in its order."""
    rows = torch.arange(3 * config["hidden_size"]).view(3, config["num_attention_heads"], -1)
    order = rows.transpose(0, 1).flatten()
    return {
        name.replace("qkv_proj", "query_key_value"): weight[order] if "qkv_proj" in name else weight
        for name, weight in weights.items()
    }


ARCHITECTURES = {
    "command-r": Architecture(
        "CohereForCausalLM",
        "cohere",
        _command_r,
        ATTENTION | MLP | HEAD_NORMS | {"attn_norm": "input_layernorm"},
        plain=frozenset(HEAD_NORMS.values()),
        keys=frozenset({"logit_scale"}),
        epsilon=_USUAL,
        left_out=lambda config: frozenset() if config["use_qk_norm"] else frozenset(HEAD_NORMS.values()),
    ),
    "olmo": Architecture(
        "OlmoForCausalLM",
        "olmo",
        _olmo,
        ATTENTION | MLP,
        epsilon=_USUAL,
        interleaved=True,
        outer={name: module for name, module in OUTER.items() if name != "output_norm"},
    ),
    "gptneox": Architecture(
        "GPTNeoXForCausalLM",
        "gpt_neox",
        _neox,
        _NEOX,
        keys=frozenset({_PARALLEL}),
        epsilon=_USUAL,
        partial=True,
        forms=Forms(no_part, (), _one_matrix, _by_heads),
        outer={
            "token_embd": "gpt_neox.embed_in",
            "output_norm": "gpt_neox.final_layer_norm",
            "output": "lm_head",
        },
        layers="gpt_neox.layers.",
    ),
    "phi2": Architecture(
        "PhiForCausalLM",
        "phi",
        _phi,
        _PHI,
        epsilon=_USUAL,
        partial=True,
        forms=fused_qkv.FORMS,
        outer=OUTER | {"output_norm": "model.final_layernorm"},
    ),
    "stablelm": Architecture(
        "StableLmForCausalLM",
        "stablelm",
        _stablelm,
        LLAMA,
        biases=_NORMS,
        keys=frozenset({_PARALLEL}),
        epsilon=_USUAL,
        partial=True,
        left_out=lambda config: frozenset({"post_attention_layernorm"} if config[_PARALLEL] else ()),
    ),
    "nemotron": Architecture(
        "NemotronForCausalLM",
        "nemotron",
        _nemotron,
        _UNGATED,
        biases=_NORMS,
        keys=frozenset({"attention.layer_norm_rms_epsilon"}),  # the same number, written a second time
        epsilon=(_EPSILON, "norm_eps"),
        partial=True,
        norm_offset=1.0,
    ),
    "jais2": Architecture(
        "Jais2ForCausalLM", "jais2", _jais2, _UNGATED, biases=frozenset({*_NORMS, *_UNGATED.values()}), epsilon=_USUAL
    ),
}
"""By the names that GGUF gives them."""
