"""How the metadata of GGUF files says what transformers' configurations of families with experts say.

A family is one function and one entry of `ARCHITECTURES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from rapid_integrations.models.gguf.header import GgufHeader, GgufTensor

Told: TypeAlias = Mapping[str, Any]
"""What a file says of its model, by names without the architecture's prefix."""

Tensors: TypeAlias = Mapping[str, GgufTensor]
_COMMON = {
    *("attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.layer_norm_rms_epsilon"),
    *("attention.value_length", "block_count", "context_length", "embedding_length", "expert_count"),
    *("expert_used_count", "feed_forward_length", "rope.dimension_count", "rope.freq_base", "rope.scaling.attn_factor"),
    *("rope.scaling.factor", "rope.scaling.original_context_length", "rope.scaling.type", "vocab_size"),
    *("expert_feed_forward_length", "interleave_moe_layer_step"),
}
_SIGMOID = 2  # of `expert_gating_func`
_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
_SECOND_NORM = {"post_attention_norm": "post_attention_layernorm"}


@dataclass(frozen=True)
class Architecture:
    """A family in GGUF files.

    Attributes:
        class_name, model_type: as transformers has them.
        own: returns what its configuration has beside what all have, or None if it says something else.
        names: of what the file has in a layer, where it differs from Llama; with ".weight" or ".bias" for one tensor.
        plain: the names, as the model has them, of matrices that never lie in blocks.
        experts: the module that holds them.
        keys: what the file says beside what all say.
        interleaved: the file has the rows of queries and keys in another order, as llama.cpp rotates neighbours.
        partial: whether only a part of each head may be rotated.
    """

    class_name: str
    model_type: str
    own: Callable[[Told, Tensors], dict[str, Any] | None]
    names: Mapping[str, str] = field(default_factory=dict)
    plain: frozenset[str] = frozenset({"mlp.gate"})
    experts: str = "mlp.experts"
    keys: frozenset[str] = frozenset()
    interleaved: bool = False
    partial: bool = False

    def configuration(self, header: GgufHeader, tensors: Tensors) -> dict[str, Any] | None:
        """Return a configuration under transformers' names, or None if the file says what is not known here.

        Raises:
            KeyError, TypeError, ZeroDivisionError: a number is left out, or is no number.
        """
        prefix = f"{header.architecture}."
        stated = header.metadata
        told = {key.removeprefix(prefix): value for key, value in stated.items() if key.startswith(prefix)}
        heads, width = told["attention.head_count"], told["embedding_length"]
        head_dim = told.get("attention.key_length", width // heads)
        turned = told.get("rope.dimension_count", head_dim)
        table = tensors["token_embd.weight"]
        rope = {"rope_type": "default", "rope_theta": told.get("rope.freq_base", 10000.0)}
        if self.partial:
            rope["partial_rotary_factor"] = turned / head_dim
        config = {
            "architectures": [self.class_name],
            "model_type": self.model_type,
            "hidden_act": "silu",
            "hidden_size": width,
            "num_hidden_layers": told["block_count"] - told.get("nextn_predict_layers", 0),
            "num_attention_heads": heads,
            "num_key_value_heads": told.get("attention.head_count_kv", heads),
            "head_dim": head_dim,
            "rms_norm_eps": told["attention.layer_norm_rms_epsilon"],
            "max_position_embeddings": told["context_length"],
            "rope_parameters": rope,
            "tie_word_embeddings": "output.weight" not in tensors,
            "vocab_size": table.shape[1],
            **{f"{name}_token_id": stated.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos")},
            "pad_token_id": stated.get("tokenizer.ggml.padding_token_id"),
            "num_experts_per_tok": told["expert_used_count"],
        }
        numbers = [told["expert_count"], *(config[name] for name in _NUMBERS)]
        if (
            set(told) - _COMMON - self.keys
            or not all(type(each) is int and each > 0 for each in numbers)
            or (turned != head_dim and not self.partial)
            or told.get("attention.value_length", head_dim) != head_dim
            or told.get("rope.scaling.attn_factor", 1.0) != 1.0
            or told.get("interleave_moe_layer_step", 1) != 1
        ):
            return None
        own = self.own(told, tensors)
        return None if own is None else config | own


_NUMBERS = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size"),
    "num_experts_per_tok",
)


def _qwen3(told: Told, tensors: Tensors) -> dict[str, Any]:
    # llama.cpp divides by the sum of the weights of the experts that are taken; the file does not say it.
    inner = told["expert_feed_forward_length"]
    own = {"num_experts": told["expert_count"], "norm_topk_prob": True, "moe_intermediate_size": inner}
    return own | {"intermediate_size": told.get("feed_forward_length", inner), "attention_bias": False}


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
        "attention_multiplier": told["attention.scale"],
        "embedding_multiplier": told["embedding_scale"],
        "residual_multiplier": told["residual_scale"],
        "logits_scaling": told["logit_scale"],
        "attention_bias": False,
    }


def _shared(module: str) -> dict[str, str]:
    return {f"ffn_{part}_shexp": f"mlp.{module}.{part}_proj" for part in ("gate", "up", "down")}


_GATE = {"ffn_gate_inp": "mlp.gate"}
ARCHITECTURES = {
    "qwen3moe": Architecture("Qwen3MoeForCausalLM", "qwen3_moe", _qwen3, _GATE | _NORMS),
    "qwen2moe": Architecture(
        "Qwen2MoeForCausalLM",
        "qwen2_moe",
        _qwen2,
        _GATE | _shared("shared_expert") | {"ffn_gate_inp_shexp": "mlp.shared_expert_gate"},
        plain=frozenset({"mlp.gate", "mlp.shared_expert_gate"}),
        keys=frozenset({"expert_shared_feed_forward_length"}),
    ),
    "llama": Architecture("MixtralForCausalLM", "mixtral", _mixtral, _GATE, interleaved=True),
    "olmoe": Architecture("OlmoeForCausalLM", "olmoe", _olmoe, _GATE | _NORMS),
    "gpt-oss": Architecture(
        "GptOssForCausalLM",
        "gpt_oss",
        _gpt_oss,
        {"ffn_gate_inp": "mlp.router", "attn_sinks.weight": "self_attn.sinks"} | _SECOND_NORM,
        plain=frozenset({"mlp.router"}),
        keys=frozenset({"attention.sliding_window"}),
    ),
    "glm4moe": Architecture(
        "Glm4MoeForCausalLM",
        "glm4_moe",
        _glm4,
        _GATE
        | _NORMS
        | _SECOND_NORM
        | _shared("shared_experts")
        | {"exp_probs_b.bias": "mlp.gate.e_score_correction_bias"},
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
        {"ffn_gate_inp": "block_sparse_moe.router"},
        plain=frozenset({"block_sparse_moe.router"}),
        experts="block_sparse_moe.experts",
        keys=frozenset({"attention.scale", "embedding_scale", "residual_scale", "logit_scale"}),
        interleaved=True,
    ),
}
"""By the names that GGUF gives them. A file of "llama" is one of Mixtral if it says how many experts there are."""
