"""What the metadata of GGUF files says of families that differ from Llama in names and numbers only.

Files of models that also see pictures hold the language model; what they say of positions in pictures is the same for
all three positions of a token of text.
"""

from __future__ import annotations

from typing import Any

from rapid_integrations.models.gguf.architecture import (
    ATTENTION,
    HEAD_NORMS,
    LLAMA,
    MLP,
    NORMS_AROUND,
    NORMS_BEFORE,
    QKV,
    Architecture,
    Tensors,
    Told,
    whole_heads,
)
from rapid_integrations.models.gguf.forms import FULL, PATTERN, WINDOW, count, layer_types

SECTIONS, DEEPSTACK = "rope.dimension_sections", "n_deepstack_layers"
OF_PICTURES = frozenset({SECTIONS, DEEPSTACK})
"""What files say of positions in pictures, and of layers that pictures are added to."""
_BEHIND = ATTENTION | HEAD_NORMS | MLP | {each: NORMS_AROUND[each] for each in ("post_attention_norm", "post_ffw_norm")}
_NORMS_OF_QUERIES = {"attn_q_norm": "self_attn.query_layernorm", "attn_k_norm": "self_attn.key_layernorm"}


def require_sections(told: Told) -> None:
    """Refuse sections that leave some pairs to a fourth position.

    llama.cpp does not turn pairs at all that the three of Qwen3-VL do not reach in turn (two of 64, which turn least).
    The model turns them with the first position, and so does this engine.

    Raises:
        KeyError, TypeError: they do, or are no list of numbers.
    """
    sections, heads, width = told[SECTIONS], told["attention.head_count"], told["embedding_length"]
    pairs = told.get("rope.dimension_count", told.get("attention.key_length", width // heads)) // 2
    if not isinstance(sections, list) or len(sections) not in (3, 4) or {type(each) for each in sections} != {int}:
        raise TypeError(f"{SECTIONS} is {sections!r}")
    if min(sections) < 0 or sum(sections[:3]) != pairs or any(sections[3:]):
        raise TypeError(f"{SECTIONS} is {sections!r}, of {pairs} pairs")


def _gemma(told: Told, tensors: Tensors) -> dict[str, Any]:
    return {"hidden_act": "gelu_pytorch_tanh", "attention_bias": False}


def _arcee(told: Told, tensors: Tensors) -> dict[str, Any]:
    return {"hidden_act": "relu2", "attention_bias": False, "mlp_bias": False}


def _ernie4_5(told: Told, tensors: Tensors) -> dict[str, Any]:
    return {"use_bias": False}


def _exaone4(told: Told, tensors: Tensors) -> dict[str, Any]:
    own = {"attention_bias": False} | whole_heads(told)
    if WINDOW not in told:  # all layers are rotated then
        return own | {"sliding_window": None, "layer_types": [FULL] * told["block_count"]}
    return own | {"sliding_window": count(told, WINDOW), "layer_types": layer_types(told, 4)}


def _hunyuan(told: Told, tensors: Tensors) -> dict[str, Any]:
    if told.get("rope.scaling.type", "none") != "none" or told.get("rope.scaling.factor", 1.0) != 1.0:
        raise TypeError("its angles are stretched otherwise than by another base")
    return {"attention_bias": False}


def _seed_oss(told: Told, tensors: Tensors) -> dict[str, Any]:
    return {"attention_bias": "blk.0.attn_q.bias" in tensors, "attention_out_bias": False, "mlp_bias": False}


def _with_sections(told: Told, tensors: Tensors) -> dict[str, Any]:
    require_sections(told)
    return {}


ARCHITECTURES = {
    "gemma": Architecture("GemmaForCausalLM", "gemma", _gemma, LLAMA, norm_offset=1.0),
    "arcee": Architecture(
        "ArceeForCausalLM",
        "arcee",
        _arcee,
        ATTENTION | NORMS_BEFORE | {f"ffn_{part}": MLP[f"ffn_{part}"] for part in ("up", "down")},
        interleaved=True,
    ),
    "ernie4_5": Architecture("Ernie4_5ForCausalLM", "ernie4_5", _ernie4_5, LLAMA),
    "exaone4": Architecture("Exaone4ForCausalLM", "exaone4", _exaone4, _BEHIND, keys=frozenset({WINDOW, PATTERN})),
    "hunyuan-dense": Architecture("HunYuanDenseV1ForCausalLM", "hunyuan_v1_dense", _hunyuan, LLAMA | _NORMS_OF_QUERIES),
    "seed_oss": Architecture(
        "SeedOssForCausalLM",
        "seed_oss",
        _seed_oss,
        ATTENTION | MLP | {"attn_norm": "input_layernorm", "post_attention_norm": "post_attention_layernorm"},
    ),
    "qwen2vl": Architecture(
        "Qwen2ForCausalLM", "qwen2", _with_sections, LLAMA, biases=frozenset(QKV), keys=frozenset({SECTIONS})
    ),
    "qwen3vl": Architecture("Qwen3ForCausalLM", "qwen3", _with_sections, LLAMA | HEAD_NORMS, keys=OF_PICTURES),
}
"""By the names that GGUF gives them."""
