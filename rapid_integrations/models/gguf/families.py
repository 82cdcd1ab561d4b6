"""How the metadata of GGUF files says what transformers' configurations of families without experts say.

A family is one function and one entry of `ARCHITECTURES`. What a file does not say is what llama.cpp takes for granted,
so it is written here: which layers have windows, which are not rotated, and the scale of the scores of the largest
Gemmas.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import isclose, log
from typing import Any

from rapid_integrations.models.gguf import (
    apertus,
    falcon_h1,
    gemma3n,
    gemma4,
    hybrids,
    latent,
    layer_norms,
    mamba,
    mamba2,
    near_llama,
    nemotron_h,
    short_convolutions,
)
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
from rapid_integrations.models.gguf.forms import FULL, PATTERN, SLIDING, WINDOW, count, layer_types

_FUSED = {
    "attn_qkv": "self_attn.qkv_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_up": "mlp.gate_up_proj",
    "ffn_down": "mlp.down_proj",
}
_STARCODER2 = ATTENTION | NORMS_BEFORE | {"ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj"}
_OLMO = ATTENTION | HEAD_NORMS | MLP | {name: NORMS_AROUND[name] for name in ("post_attention_norm", "post_ffw_norm")}
_FACTORS_OF_YARN = ("rope.scaling.attn_factor", "rope.scaling.yarn_attn_factor")
_BOUNDS_OF_YARN = {
    **{"rope.scaling.yarn_beta_fast": 32.0, "rope.scaling.yarn_beta_slow": 1.0, "rope.scaling.yarn_ext_factor": 1.0}
}
_LAYERS_OF_GEMMA_2_27B, _LAYERS_OF_GEMMA_3_27B = 46, 62


def _nothing(told: Told, tensors: Tensors) -> dict[str, Any]:
    return {}


def _scalar(told: Told, of_largest: int) -> int:
    """Return the number whose root divides the scores of Gemma's attention: in the largest it is no head's width.

    Raises:
        TypeError: it is no whole number.
    """
    heads, width = told["attention.head_count"], told["embedding_length"]
    if told["block_count"] != of_largest:
        return int(told.get("attention.key_length", width // heads))
    if width % heads:
        raise TypeError(f"{width} numbers of {heads} heads")
    return int(width // heads)


def _gemma(told: Told, every: int, of_largest: int) -> dict[str, Any]:
    return {
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": count(told, WINDOW),
        "layer_types": layer_types(told, every),
        "query_pre_attn_scalar": _scalar(told, of_largest),
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "attention_bias": False,
    }


def _gemma2(told: Told, tensors: Tensors) -> dict[str, Any]:
    caps = {f"{name}_logit_softcapping": told[f"{name}_logit_softcapping"] for name in ("attn", "final")}
    return _gemma(told, 2, _LAYERS_OF_GEMMA_2_27B) | caps


def _gemma3(told: Told, tensors: Tensors) -> dict[str, Any]:
    own = _gemma(told, 6, _LAYERS_OF_GEMMA_3_27B)
    own["final_logit_softcapping"] = told.get("final_logit_softcapping")
    # What the file says of stretched angles holds for the layers that see all keys.
    local = {"rope_type": "default", "rope_theta": told.get("rope.freq_base_swa", 10000.0)}
    whole = {"rope_type": "default", "rope_theta": told["rope.freq_base"]}
    return own | {"rope_parameters": {FULL: whole, SLIDING: local}}


def _phi3(told: Told, tensors: Tensors) -> dict[str, Any] | None:
    # transformers knows no angles of this family but plain ones and those that follow the length of the text.
    if told.get("rope.scaling.type", "none") != "none":
        return None
    return {"sliding_window": count(told, WINDOW) if told[WINDOW] else None} | whole_heads(told)


def _granite(told: Told, tensors: Tensors) -> dict[str, Any]:
    return granite_factors(told) | {"mlp_bias": False} | whole_heads(told)


def _smollm3(told: Told, tensors: Tensors) -> dict[str, Any]:
    layers = told["block_count"]
    return {
        "no_rope_layers": [int(index % 4 != 3) for index in range(layers)],
        "layer_types": [FULL] * layers,
        "use_sliding_window": False,
        "attention_bias": False,
        "mlp_bias": False,
    }


def _olmo2(told: Told, tensors: Tensors) -> dict[str, Any]:
    return {"attention_bias": False} | whole_heads(told)


def _olmo3(told: Told, tensors: Tensors) -> dict[str, Any]:
    theta = told["rope.freq_base"]
    if told.get("rope.freq_base_swa", theta) != theta:
        raise TypeError("layers with windows have angles of their own, which llama.cpp does not compute")
    _require_usual_yarn(told)
    rope = {
        "rope_type": "default",
        "rope_theta": theta,
    }  # what the file says of stretched angles holds for whole layers
    return {
        "attention_bias": False,
        "sliding_window": count(told, WINDOW),
        "layer_types": layer_types(told, 4),
        "rope_parameters": {FULL: rope, SLIDING: dict(rope)},
    } | whole_heads(told)


def _require_usual_yarn(told: Told) -> None:
    """Refuse a factor on cosines, or bounds between frequencies, other than those that yarn has if nothing is said.

    Files have the model's whole factor, under one of two names, or none. llama.cpp overlooks one name, and multiplies
    its own factor by what stands under the other one, so it computes something else than the model then.

    Raises:
        TypeError: it has others, or some without yarn.
    """
    stated = [told[key] for key in (*_FACTORS_OF_YARN, *_BOUNDS_OF_YARN) if key in told]
    if not stated:
        return
    if told.get("rope.scaling.type") != "yarn":
        raise TypeError("numbers of yarn without it")
    factor = told["rope.scaling.factor"]
    if not isinstance(factor, int | float) or not factor >= 1:
        raise TypeError(f"rope.scaling.factor is {factor!r}")
    usual = 0.1 * log(factor) + 1
    if not all(isclose(told.get(key, usual), usual, rel_tol=1e-4) for key in _FACTORS_OF_YARN):
        raise TypeError(f"a factor on cosines is not {usual}")
    if any(told.get(key, value) != value for key, value in _BOUNDS_OF_YARN.items()):
        raise TypeError(f"bounds are not {_BOUNDS_OF_YARN}")


def _cohere2(told: Told, tensors: Tensors) -> dict[str, Any]:
    return {
        "logit_scale": told["logit_scale"],
        "sliding_window": count(told, WINDOW),
        "layer_types": layer_types(told, 4),
        "attention_bias": False,
    } | whole_heads(told)


def _starcoder2(told: Told, tensors: Tensors) -> dict[str, Any]:
    # Its files say nothing of a window, and llama.cpp computes without one.
    own = {"hidden_act": "gelu_pytorch_tanh", "use_bias": True, "sliding_window": None}
    return own | whole_heads(told)


def _glm4(told: Told, tensors: Tensors) -> dict[str, Any]:
    return {"attention_bias": "blk.0.attn_q.bias" in tensors}


def _qwen35(told: Told, tensors: Tensors) -> dict[str, Any]:
    return hybrids.numbers_of(told, sections=True)


def _lfm2(told: Told, tensors: Tensors) -> dict[str, Any]:
    return short_convolutions.numbers_of(told) | {"block_auto_adjust_ff_dim": False} | whole_heads(told)


def _granite4(told: Told, tensors: Tensors) -> dict[str, Any]:
    inner = told["feed_forward_length"]
    if told.get("expert_shared_feed_forward_length", inner) != inner:
        raise TypeError("an MLP has two widths")
    none = {"num_local_experts": 0, "num_experts_per_tok": 0}
    return mamba2.numbers_of(told, tensors) | none | {"shared_intermediate_size": inner}


_OF_OTHER_MODULES = (
    near_llama.ARCHITECTURES | layer_norms.ARCHITECTURES | latent.WITHOUT_EXPERTS | apertus.ARCHITECTURES
)
_MAMBA = Architecture(
    "MambaForCausalLM",
    "mamba",
    partial(mamba.numbers_of, normalised=False),
    mamba.NAMES,
    plain=mamba.plain("mixer"),
    keys=mamba.KEYS,
    epsilon=mamba.EPSILON,
    forms=mamba.forms("mixer"),
    outer=mamba.MODULES_AROUND,
    layers="backbone.layers.",
    attends=False,
)

ARCHITECTURES = _OF_OTHER_MODULES | {
    "llama": Architecture("LlamaForCausalLM", "llama", _nothing, LLAMA, interleaved=True, by_transformers=True),
    "qwen2": Architecture("Qwen2ForCausalLM", "qwen2", _nothing, LLAMA, biases=frozenset(QKV), by_transformers=True),
    "qwen3": Architecture("Qwen3ForCausalLM", "qwen3", _nothing, LLAMA | HEAD_NORMS, by_transformers=True),
    "gemma3": Architecture(
        "Gemma3ForCausalLM",
        "gemma3_text",
        _gemma3,
        ATTENTION | HEAD_NORMS | MLP | NORMS_AROUND,
        keys=frozenset({WINDOW, PATTERN, "rope.freq_base_swa", "final_logit_softcapping"}),
        norm_offset=1.0,
    ),
    "gemma3n": Architecture(
        "Gemma3nForCausalLM",
        "gemma3n_text",
        gemma3n.numbers_of,
        gemma3n.NAMES,
        plain=gemma3n.PLAIN,
        keys=gemma3n.KEYS,
        forms=gemma3n.FORMS,
        by_layer=True,
        outer=gemma3n.OUTER,
    ),
    "gemma4": Architecture(
        "Gemma4ForCausalLM",
        "gemma4_text",
        gemma4.numbers_of,
        gemma4.NAMES,
        plain=gemma4.PLAIN,
        keys=gemma4.KEYS,
        forms=gemma4.FORMS,
        by_layer=True,
        proportional=True,
        outer=gemma4.OUTER,
    ),
    "gemma2": Architecture(
        "Gemma2ForCausalLM",
        "gemma2",
        _gemma2,
        ATTENTION | MLP | NORMS_AROUND,
        keys=frozenset({WINDOW, PATTERN, "attn_logit_softcapping", "final_logit_softcapping"}),
        norm_offset=1.0,
    ),
    "phi3": Architecture(
        "Phi3ForCausalLM",
        "phi3",
        _phi3,
        _FUSED | NORMS_BEFORE,
        keys=frozenset({WINDOW}),
        partial=True,
        long_rope=True,
    ),
    "granite": Architecture("GraniteForCausalLM", "granite", _granite, LLAMA, keys=GRANITE_FACTORS, interleaved=True),
    "smollm3": Architecture("SmolLM3ForCausalLM", "smollm3", _smollm3, LLAMA, interleaved=True),
    "olmo2": Architecture("Olmo2ForCausalLM", "olmo2", _olmo2, _OLMO),
    "cohere2": Architecture(
        "Cohere2ForCausalLM",
        "cohere2",
        _cohere2,
        ATTENTION | MLP | {"attn_norm": "input_layernorm"},
        keys=frozenset({WINDOW, PATTERN, "logit_scale"}),
        epsilon=("attention.layer_norm_epsilon", "layer_norm_eps"),
    ),
    "starcoder2": Architecture(
        "Starcoder2ForCausalLM",
        "starcoder2",
        _starcoder2,
        _STARCODER2,
        biases=frozenset({"model.norm", *_STARCODER2.values()}),
        epsilon=("attention.layer_norm_epsilon", "norm_epsilon"),
    ),
    "glm4": Architecture(
        "Glm4ForCausalLM",
        "glm4",
        _glm4,
        ATTENTION
        | {"ffn_up": "mlp.gate_up_proj", "ffn_down": "mlp.down_proj"}
        | {"attn_norm": "input_layernorm", "post_attention_norm": "post_self_attn_layernorm"}
        | {"ffn_norm": "post_attention_layernorm", "post_ffw_norm": "post_mlp_layernorm"},
        partial=True,
    ),
    "qwen35": Architecture(
        "Qwen3_5ForCausalLM",
        "qwen3_5_text",
        _qwen35,
        hybrids.NAMES | MLP,
        plain=hybrids.PLAIN,
        keys=hybrids.KEYS,
        partial=True,
        norm_offset=1.0,
        forms=hybrids.FORMS,
    ),
    "lfm2": Architecture(
        "Lfm2ForCausalLM",
        "lfm2",
        _lfm2,
        short_convolutions.NAMES,
        keys=short_convolutions.KEYS,
        epsilon=short_convolutions.EPSILON,
        forms=short_convolutions.FORMS,
        some_attend=True,
        outer=short_convolutions.OUTER,
    ),
    "falcon-h1": Architecture(
        "FalconH1ForCausalLM",
        "falcon_h1",
        falcon_h1.numbers_of,
        falcon_h1.NAMES,
        keys=falcon_h1.KEYS,
        forms=falcon_h1.FORMS,
        outer=falcon_h1.OUTER,
    ),
    "nemotron_h": Architecture(
        "NemotronHForCausalLM",
        "nemotron_h",
        nemotron_h.numbers_of,
        nemotron_h.NAMES,
        keys=nemotron_h.KEYS,
        epsilon=nemotron_h.EPSILON,
        forms=nemotron_h.FORMS,
        some_attend=True,
        outer=nemotron_h.MODULES_AROUND,
    ),
    "jamba": Architecture(
        "JambaForCausalLM",
        "jamba",
        mamba.numbers_of_jamba,
        mamba.OF_JAMBA,
        plain=mamba.plain("mamba"),
        keys=mamba.KEYS,
        forms=mamba.forms("mamba"),
        some_attend=True,
        outer=mamba.AROUND_JAMBA,
    ),
    "mamba": _MAMBA,
    "granitehybrid": Architecture(
        "GraniteMoeHybridForCausalLM",
        "granitemoehybrid",
        _granite4,
        mamba2.NAMES,
        keys=mamba2.KEYS,
        interleaved=True,
        forms=mamba2.FORMS,
        some_attend=True,
    ),
}
"""By the names that GGUF gives them."""

WITH_POSITIONS = {
    "granitehybrid": Architecture(
        "BambaForCausalLM",
        "bamba",
        mamba2.numbers_of_bamba,
        mamba2.OF_BAMBA,
        keys=mamba2.KEYS_OF_BAMBA,
        interleaved=True,
        partial=True,
        forms=mamba2.FORMS_OF_BAMBA,
        some_attend=True,
        outer=mamba2.OUTER_OF_BAMBA,
    ),
}
"""The same for files of which another model is meant if they say that attentions know positions."""

NORMALISED = {
    "mamba": replace(
        _MAMBA,
        class_name="FalconMambaForCausalLM",
        model_type="falcon_mamba",
        own=partial(mamba.numbers_of, normalised=True),
    ),
}
"""The same for files of Mamba that say that steps, keys and queries are normalised."""

WITH_WINDOWS = {
    "olmo2": Architecture(
        "Olmo3ForCausalLM",
        "olmo3",
        _olmo3,
        _OLMO,
        keys=frozenset({WINDOW, PATTERN, "rope.freq_base_swa", *_FACTORS_OF_YARN, *_BOUNDS_OF_YARN}),
        scaled=True,
    ),
}
"""The same for files of which another model is meant if they say a window."""
