"""What the metadata of GGUF files says of families that differ from Llama in names and numbers only.

Some have no class in transformers, or need none: EXAONE 3 and InternLM 2 compute what Llama does, and MiniCPM what
Granite does.

Files of models that also see pictures hold the language model; what they say of positions in pictures is the same for
all three positions of a token of text.
"""

from __future__ import annotations

from math import isfinite
from typing import Any

from rapid_integrations.models.gguf import fused_qkv
from rapid_integrations.models.gguf.architecture import (
    ATTENTION,
    GRANITE_FACTORS,
    HEAD_NORMS,
    LLAMA,
    MLP,
    NORMS_AROUND,
    NORMS_BEFORE,
    QKV,
    Architecture,
    Tensors,
    Told,
    granite_factors,
    whole_heads,
)
from rapid_integrations.models.gguf.forms import FULL, PATTERN, WINDOW, count, layer_types

SECTIONS, DEEPSTACK = "rope.dimension_sections", "n_deepstack_layers"
OF_PICTURES = frozenset({SECTIONS, DEEPSTACK})
"""What files say of positions in pictures, and of layers that pictures are added to."""
_BEHIND = ATTENTION | HEAD_NORMS | MLP | {each: NORMS_AROUND[each] for each in ("post_attention_norm", "post_ffw_norm")}
_TEMPERATURE, _LOG_MUL = "attention.temperature_scale", "rope.scaling.yarn_log_multiplier"
_BOUNDS = ("rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow")
NORMS_OF_QUERIES = {"attn_q_norm": "self_attn.query_layernorm", "attn_k_norm": "self_attn.key_layernorm"}


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


def _mistral3(told: Told, tensors: Tensors) -> dict[str, Any]:
    kind = told.get("rope.scaling.type", "none")
    if _TEMPERATURE not in told:  # Mistral Small 3; llama.cpp has another factor on yarn's cosines than the model
        if kind not in ("none", "linear") or _LOG_MUL in told:
            raise TypeError(f"angles are stretched by {kind!r}")
        return {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": None}
    grows_by, factor = told[_TEMPERATURE], told["rope.scaling.factor"]
    bounds = [told.get(key, usual) for key, usual in zip(_BOUNDS, (32.0, 1.0), strict=True)]
    numbers = (grows_by, factor, *bounds)
    if not all(isinstance(each, int | float) and isfinite(each) and each > 0 for each in numbers):
        raise TypeError(f"growth, factor or bounds are {numbers!r}")
    if kind != "yarn" or factor < 1 or told[_LOG_MUL] != 1.0:  # another one has a factor on cosines
        raise TypeError(f"angles are stretched by {kind!r}, {factor!r} and {told[_LOG_MUL]!r}")
    rope = {
        **{"rope_type": "yarn", "rope_theta": told["rope.freq_base"], "factor": float(factor)},
        **{"beta_fast": float(bounds[0]), "beta_slow": float(bounds[1]), "mscale": 1.0, "mscale_all_dim": 1.0},
        "original_max_position_embeddings": count(told, "rope.scaling.original_context_length"),
        "llama_4_scaling_beta": float(grows_by),
    }
    return {"sliding_window": None, "rope_parameters": rope}


def _minicpm(told: Told, tensors: Tensors) -> dict[str, Any]:
    head_dim = told.get("attention.key_length", told["embedding_length"] // told["attention.head_count"])
    factors = granite_factors({"attention.scale": head_dim**-0.5, **told})
    return factors | {"mlp_bias": False} | whole_heads(told)


def _chatglm(told: Told, tensors: Tensors) -> dict[str, Any]:
    biases = {"blk.0.attn_q.bias", "blk.0.attn_qkv.bias"}
    return {"attention_bias": bool(biases & tensors.keys())} | whole_heads(told)


def _nothing(told: Told, tensors: Tensors) -> dict[str, Any]:
    return {}


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
    "hunyuan-dense": Architecture("HunYuanDenseV1ForCausalLM", "hunyuan_v1_dense", _hunyuan, LLAMA | NORMS_OF_QUERIES),
    "mistral3": Architecture(
        "Ministral3ForCausalLM",
        "ministral3",
        _mistral3,
        LLAMA,
        keys=frozenset({_TEMPERATURE, _LOG_MUL, *_BOUNDS}),
        interleaved=True,
    ),
    "exaone": Architecture("LlamaForCausalLM", "llama", _nothing, LLAMA),
    "internlm2": Architecture("LlamaForCausalLM", "llama", _nothing, LLAMA, interleaved=True),
    "minicpm": Architecture(
        "GraniteForCausalLM",
        "granite",
        _minicpm,
        LLAMA,
        keys=GRANITE_FACTORS - {"attention.scale"},
        interleaved=True,
    ),
    "chatglm": Architecture(
        "GlmForCausalLM",
        "glm",
        _chatglm,
        ATTENTION | NORMS_BEFORE | {"ffn_up": "mlp.gate_up_proj", "ffn_down": "mlp.down_proj"},
        partial=True,
        forms=fused_qkv.FORMS,
    ),
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
