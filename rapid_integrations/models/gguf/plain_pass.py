"""The forward pass of Llama, Qwen2 and Qwen3 in float32, written down from their formulas.

The first start of a file compares with it, because importing transformers' models takes longer than the comparison. It
shares no code with what it is compared with: neither the modules, their description, the angles nor the panels. It
reads the configuration itself, and takes none in which a setting is not known here. `tests/unit/models/gguf` compares
it with transformers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu

from rapid_integrations.kernels.cpu.blocks import rows_of
from rapid_integrations.models.block_linear import StoredBlocks

_CLASSES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
_SIZES = {
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
    *("head_dim", "vocab_size", "max_position_embeddings"),
}
_OTHERS = {
    *("architectures", "model_type", "hidden_act", "rms_norm_eps", "rope_parameters", "tie_word_embeddings"),
    *("bos_token_id", "eos_token_id", "pad_token_id"),
}
_ROPES = {
    "default": {"rope_theta", "rope_type"},
    "linear": {"rope_theta", "rope_type", "factor"},
    "llama3": {
        *("rope_theta", "rope_type", "factor", "low_freq_factor", "high_freq_factor"),
        "original_max_position_embeddings",
    },
}
_NUMBERS = 1 << 20  # weights that are numbers at once; fresh memory for more takes longer than the product


def knows(config: Mapping[str, Any]) -> bool:
    """Return whether every setting of a configuration, under transformers' names, is one that `logits_of` computes."""
    rope = config.get("rope_parameters")
    return (
        set(config) == _SIZES | _OTHERS
        and config["architectures"] == [_CLASSES.get(config["model_type"])]
        and config["hidden_act"] == "silu"
        and all(type(config[name]) is int and config[name] > 0 for name in _SIZES)
        and isinstance(rope, Mapping)
        and set(rope) == _ROPES.get(rope.get("rope_type", ""))
    )


def logits_of(config: Mapping[str, Any], weights: Mapping[str, Any], ids: Tensor) -> Tensor:
    """Return the logits (T, V) float32 of a text.

    Args:
        config: one that `knows` takes.
        weights: by transformers' names, `Tensor` or `StoredBlocks`. The kernels round blocks to bfloat16.
        ids: (T,) int64.

    Raises:
        KeyError: a weight is missing.
        ValueError: a weight is left over.
    """
    left = dict(weights)
    table = left.pop("model.embed_tokens.weight")
    head = table if config["tie_word_embeddings"] else left.pop("lm_head.weight")
    eps = config["rms_norm_eps"]
    cos, sin = _rotations(config, len(ids))
    x = (rows_of(table.form, table.raw, ids) if isinstance(table, StoredBlocks) else table[ids]).float()
    for n in range(config["num_hidden_layers"]):
        layer = f"model.layers.{n}"
        read = _normed(x, left.pop(f"{layer}.input_layernorm.weight"), eps)
        x = x + _attention(config, left, f"{layer}.self_attn", read, cos, sin)
        read = _normed(x, left.pop(f"{layer}.post_attention_layernorm.weight"), eps)
        gate, up = (_linear(left, f"{layer}.mlp.{part}_proj", read) for part in ("gate", "up"))
        x = x + _linear(left, f"{layer}.mlp.down_proj", silu(gate) * up)
    logits = _product(_normed(x, left.pop("model.norm.weight"), eps), head)
    if left:
        raise ValueError(f"{len(left)} weights do not belong to the model, such as {min(left)}")
    return logits


def _attention(
    config: Mapping[str, Any], left: dict[str, Any], name: str, x: Tensor, cos: Tensor, sin: Tensor
) -> Tensor:
    heads, groups, width = (config[key] for key in ("num_attention_heads", "num_key_value_heads", "head_dim"))
    query, keys, values = (_linear(left, f"{name}.{part}_proj", x) for part in "qkv")
    query = query.view(len(x), heads, width).transpose(0, 1)  # (head, token, number)
    keys, values = (each.view(len(x), groups, width).transpose(0, 1) for each in (keys, values))
    if config["model_type"] == "qwen3":
        query = _normed(query, left.pop(f"{name}.q_norm.weight"), config["rms_norm_eps"])
        keys = _normed(keys, left.pop(f"{name}.k_norm.weight"), config["rms_norm_eps"])
    query, keys = (_turned(each, cos, sin) for each in (query, keys))
    keys, values = (each.repeat_interleave(heads // groups, dim=0) for each in (keys, values))
    scores = query @ keys.transpose(1, 2) / math.sqrt(width)
    later = torch.ones(len(x), len(x), dtype=torch.bool).triu(1)
    read = scores.masked_fill(later, -math.inf).softmax(dim=-1) @ values
    return _linear(left, f"{name}.o_proj", read.transpose(0, 1).reshape(len(x), -1))


def _linear(left: dict[str, Any], name: str, x: Tensor) -> Tensor:
    out = _product(x, left.pop(f"{name}.weight"))
    bias = left.pop(f"{name}.bias", None)
    return out if bias is None else out + bias.float()


def _product(x: Tensor, weight: Any) -> Tensor:
    """Return x W^T, (T, O) float32, of x (T, K)."""
    rows, columns = weight.shape
    out = x.new_empty(len(x), rows)
    at_once = max(1, _NUMBERS // columns)
    for start in range(0, rows, at_once):
        end = min(rows, start + at_once)
        out[:, start:end] = x @ _numbers(weight, start, end).T
    return out


def _numbers(weight: Any, start: int, end: int) -> Tensor:
    """Return some rows of a weight, float32."""
    if isinstance(weight, Tensor):
        return weight[start:end].float()
    ids = torch.arange(start, end) if weight.order is None else weight.order[start:end]
    return rows_of(weight.form, weight.raw, ids).float()


def _normed(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + eps) * weight.float()


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each number of the first half of a head with the one in its place in the second, (head, token, number)."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def _rotations(config: Mapping[str, Any], count: int) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of the angles of each position, (T, head_dim / 2) float32."""
    rope, width = config["rope_parameters"], config["head_dim"]
    speed = rope["rope_theta"] ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)  # radians a token
    if rope["rope_type"] == "linear":
        speed = speed / rope["factor"]
    elif rope["rope_type"] == "llama3":
        # Turns within the original length: many keep their speed, few are slowed down, and between it is mixed.
        turns = rope["original_max_position_embeddings"] * speed / (2 * math.pi)
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        kept = ((turns - low) / (high - low)).clamp(0, 1)
        speed = speed * (kept + (1 - kept) / rope["factor"])
    angles = torch.arange(count, dtype=torch.float64)[:, None] * speed
    return angles.cos().float(), angles.sin().float()
