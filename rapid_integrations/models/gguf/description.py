"""What the metadata of a GGUF file says of a model of the Llama family, as the configuration that transformers has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from rapid_integrations.models.block_linear import StoredBlocks
from rapid_integrations.models.gguf.header import GgufHeader
from rapid_integrations.models.gguf.rope import FACTORS, rope_of
from rapid_integrations.models.gguf.tensors import MappedTensors

_CLASSES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
_INTERLEAVED = {"llama"}  # llama.cpp rotates neighbouring numbers, so its converter moves the rows of queries and keys
_KEYS = {
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.layer_norm_rms_epsilon",
    "attention.value_length",
    "block_count",
    "context_length",
    "embedding_length",
    "expert_count",
    "expert_used_count",
    "feed_forward_length",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scaling.attn_factor",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.type",
    "vocab_size",
}
OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
IN_A_LAYER = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


_MORE = {
    "qwen2": {f"self_attn.{part}_proj.bias" for part in "qkv"},
    "qwen3": {f"self_attn.{part}_norm.weight" for part in "qk"},
}


def configuration_of(headers: Sequence[GgufHeader]) -> dict[str, Any] | None:
    """Return the configuration of a model, under transformers' names.

    None is returned for another family, if the file says something that is not known here, and if it leaves a number
    out. transformers may know better then.

    Args:
        headers: of the model's files.

    Raises:
        UnsupportedModelError: its rotary frequencies are of a kind that transformers has no name for.
    """
    header = headers[0]
    family, stated = header.architecture, header.metadata
    if family not in _CLASSES:
        return None
    prefix = f"{family}."
    told = {key.removeprefix(prefix): value for key, value in stated.items() if key.startswith(prefix)}
    tensors = {tensor.name: tensor for each in headers for tensor in each.tensors}
    table = tensors.get("token_embd.weight")
    try:
        heads, width = told["attention.head_count"], told["embedding_length"]
        head_dim = told.get("attention.key_length", width // heads)
        config = {
            "architectures": [_CLASSES[family]],
            "model_type": family,
            "hidden_act": "silu",
            "hidden_size": width,
            "intermediate_size": told["feed_forward_length"],
            "num_hidden_layers": told["block_count"],
            "num_attention_heads": heads,
            "num_key_value_heads": told.get("attention.head_count_kv", heads),
            "head_dim": head_dim,
            "rms_norm_eps": told["attention.layer_norm_rms_epsilon"],
            "max_position_embeddings": told["context_length"],
            "rope_parameters": {"rope_type": "default", "rope_theta": told.get("rope.freq_base", 10000.0)},
            "tie_word_embeddings": "output.weight" not in tensors,
            "vocab_size": table.shape[1] if table is not None and len(table.shape) == 2 else 0,
            **{f"{name}_token_id": stated.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos")},
            "pad_token_id": stated.get("tokenizer.ggml.padding_token_id"),
        }
    except (KeyError, TypeError, ZeroDivisionError):  # a number is left out, or is no number
        return None
    numbers = (heads, width, head_dim, config["num_hidden_layers"], config["num_key_value_heads"], config["vocab_size"])
    if (
        set(told) - _KEYS
        or told.get("expert_count")
        or not all(type(each) is int and each > 0 for each in numbers)
        or {told.get("rope.dimension_count", head_dim), told.get("attention.value_length", head_dim)} != {head_dim}
        or told.get("rope.scaling.attn_factor", 1.0) != 1.0
    ):
        return None
    rope = rope_of(headers, SimpleNamespace(rope_parameters=config["rope_parameters"]))
    return config if rope is None else config | {"rope_parameters": rope}


def weights_of(tensors: MappedTensors, config: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any] | None:
    """Return the weights by transformers' names, or None if a tensor is unknown or missing.

    A matrix in blocks that the kernels compute with is a `StoredBlocks`, any other tensor is a `Tensor` in `dtype`.

    Args:
        tensors: of the files.
        config: from `configuration_of`.
        dtype: of the tensors that are not kept in blocks.
    """
    weights: dict[str, Tensor | StoredBlocks] = {}
    for name in tensors.names():
        if name == FACTORS:
            continue
        if (own := _own_name(name)) is None:
            return None
        order = None
        if config["model_type"] in _INTERLEAVED and (".attn_q." in name or ".attn_k." in name):
            heads = config["num_attention_heads" if ".attn_q." in name else "num_key_value_heads"]
            order = rows_of_heads(heads, config["head_dim"])
            if tensors.tensors[name].shape[-1] != len(order):
                return None
        blocks = tensors.blocks(name, order)
        if blocks is not None:
            weights[own] = blocks
        else:
            numbers = tensors.numbers(name, dtype)
            weights[own] = numbers if order is None else numbers[order]
    return weights if weights.keys() == _all_names(config) else None


def _all_names(config: Mapping[str, Any]) -> set[str]:
    """Return the names of all weights that a model has; one without a bias computes something else."""
    names = {"model.embed_tokens.weight", "model.norm.weight"}
    if not config["tie_word_embeddings"]:
        names.add("lm_head.weight")
    parts = {f"{part}.weight" for part in IN_A_LAYER.values() if not part.endswith(("q_norm", "k_norm"))}
    parts |= _MORE.get(config["model_type"], set())
    return names | {f"model.layers.{n}.{part}" for n in range(config["num_hidden_layers"]) for part in parts}


def _own_name(name: str) -> str | None:
    stem, _, kind = name.rpartition(".")
    if kind not in ("weight", "bias"):
        return None
    if stem in OUTER:
        return f"{OUTER[stem]}.{kind}"
    first, _, rest = stem.partition(".")
    number, _, part = rest.partition(".")
    if first != "blk" or not number.isdecimal() or part not in IN_A_LAYER:
        return None
    return f"model.layers.{int(number)}.{IN_A_LAYER[part]}.{kind}"


def rows_of_heads(heads: int, head_dim: int) -> Tensor:
    """Return which row of a file is row 0, 1, ... of queries or keys: of each head the even rows, then the odd."""
    return torch.arange(heads * head_dim).view(heads, head_dim // 2, 2).transpose(1, 2).reshape(-1)
