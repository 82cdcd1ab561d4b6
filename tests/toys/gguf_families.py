"""Tiny models without experts as GGUF files, in the form that llama.cpp's converter gives their families."""

import math

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from gguf.quants import dequantize

from tests.toys.every_family import tiny
from tests.toys.gguf_experts import MERGES, TOKENIZER
from tests.toys.gguf_file import (
    blocks,
    change_metadata,
    describe_sizes,
    describe_tokenizer,
    in_files_order,
    in_models_order,
    write_out,
)
from tests.toys.models import BOS_ID, EOS_ID

ARCHITECTURES = {
    "gemma3_text": gguf.MODEL_ARCH.GEMMA3,
    "gemma2": gguf.MODEL_ARCH.GEMMA2,
    "phi3": gguf.MODEL_ARCH.PHI3,
    "granite": gguf.MODEL_ARCH.GRANITE,
    "smollm3": gguf.MODEL_ARCH.SMOLLM3,
    "olmo2": gguf.MODEL_ARCH.OLMO2,
    "olmo3": gguf.MODEL_ARCH.OLMO2,
    "cohere2": gguf.MODEL_ARCH.COHERE2,
    "starcoder2": gguf.MODEL_ARCH.STARCODER2,
    "glm4": gguf.MODEL_ARCH.GLM4,
    "gemma": gguf.MODEL_ARCH.GEMMA,
    "arcee": gguf.MODEL_ARCH.ARCEE,
    "ernie4_5": gguf.MODEL_ARCH.ERNIE4_5,
    "exaone4": gguf.MODEL_ARCH.EXAONE4,
    "hunyuan_v1_dense": gguf.MODEL_ARCH.HUNYUAN_DENSE,
    "seed_oss": gguf.MODEL_ARCH.SEED_OSS,
    "ministral3": gguf.MODEL_ARCH.MISTRAL3,
    "mistral_small": gguf.MODEL_ARCH.MISTRAL3,
    "exaone": gguf.MODEL_ARCH.EXAONE,
    "internlm2": gguf.MODEL_ARCH.INTERNLM2,
    "minicpm": gguf.MODEL_ARCH.MINICPM,
    "glm": gguf.MODEL_ARCH.CHATGLM,
    "cohere": gguf.MODEL_ARCH.COMMAND_R,
    "olmo": gguf.MODEL_ARCH.OLMO,
    "gpt_neox": gguf.MODEL_ARCH.GPTNEOX,
    "phi": gguf.MODEL_ARCH.PHI2,
    "stablelm": gguf.MODEL_ARCH.STABLELM,
    "nemotron": gguf.MODEL_ARCH.NEMOTRON,
    "jais2": gguf.MODEL_ARCH.JAIS2,
    "apertus": gguf.MODEL_ARCH.APERTUS,
}
CLASSES = {"mistral_small": "mistral", "exaone": "llama", "internlm2": "llama", "minicpm": "granite"}
"""Of families that have none of their own, or not always: what their classes are of."""
OF_PICTURES = {
    "qwen2": (gguf.MODEL_ARCH.QWEN2VL, {"rope__dimension_sections": [8, 12, 12, 0]}),
    "qwen3": (gguf.MODEL_ARCH.QWEN3VL, {"rope__dimension_sections": [11, 11, 10, 0], "n_deepstack_layers": 3}),
}
"""Families whose language models are in files of models that see pictures, too."""
TRANSFORMERS_READS = ("gemma3_text", "gemma2", "phi3", "starcoder2", "stablelm", "nemotron")
ALWAYS_TIED = ("gemma3_text", "gemma2", "cohere2", "gemma", "cohere")  # llama.cpp's converter writes no head of theirs
# llama.cpp's converter moves the rows of their queries and keys,
_INTERLEAVED = (*("granite", "smollm3", "arcee", "olmo", "ministral3", "mistral_small", "internlm2", "minicpm"),)
_PLUS_ONE = ("gemma3_text", "gemma2", "gemma", "nemotron")  # and adds one to the weights of their norms
_SIZES = {
    **{"vocab_size": len(TOKENIZER), "hidden_size": 256, "intermediate_size": 512, "head_dim": 64},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2, "sliding_window": 20},
    **{"bos_token_id": BOS_ID, "eos_token_id": EOS_ID, "pad_token_id": None, "tie_word_embeddings": True},
}
OF_A_FAMILY = {
    "gemma3_text": {
        **{"num_hidden_layers": 7, "query_pre_attn_scalar": 64},
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
        },
    },
    "gemma2": {
        **{"num_hidden_layers": 3, "query_pre_attn_scalar": 64, "attn_logit_softcapping": 5.0},
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},  # what llama.cpp takes for granted
    },
    "phi3": {
        # transformers' padding token lies outside a small vocabulary.
        **{"tie_word_embeddings": False, "pad_token_id": EOS_ID},
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.75},
    },
    "granite": {
        **{"attention_multiplier": 0.1, "embedding_multiplier": 2.0, "logits_scaling": 4.0},
        "residual_multiplier": 0.5,
    },
    "smollm3": {"num_hidden_layers": 5},
    "olmo2": {"tie_word_embeddings": False},
    "olmo3": {
        **{"num_hidden_layers": 5, "tie_word_embeddings": False},
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 5e4} for kind in ("sliding_attention", "full_attention")
        },
    },
    "cohere2": {"num_hidden_layers": 5, "logit_scale": 0.25},
    "starcoder2": {"sliding_window": None},
    "gemma": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},  # as Gemma 2
    "ministral3": {
        **{"sliding_window": None, "tie_word_embeddings": False},
        "rope_parameters": {
            **{"rope_type": "yarn", "rope_theta": 5e4, "factor": 4.0, "original_max_position_embeddings": 16},
            **{"beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0},
            "llama_4_scaling_beta": 0.5,
        },
    },
    "mistral_small": {"sliding_window": None, "tie_word_embeddings": False},
    "minicpm": {
        **{"attention_multiplier": 0.125, "embedding_multiplier": 2.0, "logits_scaling": 4.0},  # the first is usual
        "residual_multiplier": 0.5,
    },
    **dict.fromkeys(("exaone", "internlm2", "olmo", "jais2"), {"tie_word_embeddings": False}),
    "apertus": {"rope_parameters": {"rope_type": "default", "rope_theta": 5e4}, "tie_word_embeddings": False},
    "cohere": {"logit_scale": 0.25, "use_qk_norm": True},
    "gpt_neox": {
        **{"tie_word_embeddings": False, "attention_bias": True, "use_parallel_residual": True},
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},  # as llama.cpp
    },
    "phi": {
        **{"tie_word_embeddings": False, "intermediate_size": 1024},
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
    },
    "stablelm": {
        **{"tie_word_embeddings": False, "use_qkv_bias": True, "use_parallel_residual": False},
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e4, "partial_rotary_factor": 0.25},
    },
    "nemotron": {
        "tie_word_embeddings": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e4, "partial_rotary_factor": 0.5},
    },
    "glm": {
        **{"tie_word_embeddings": False, "attention_bias": True},
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e4, "partial_rotary_factor": 0.5},
    },
    "exaone4": {"sliding_window": None, "layer_types": ["full_attention"] * 2, "tie_word_embeddings": False},
    "seed_oss": {"tie_word_embeddings": False, "attention_bias": True, "attention_out_bias": False},
    **dict.fromkeys(("qwen2", "qwen3"), {"use_sliding_window": False, "max_window_layers": 2}),
    "glm4": {
        **{"tie_word_embeddings": False, "attention_bias": False},
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
    },
}


ORIGINAL = 60  # tokens up to which Phi-3 has the angles of short texts; `gguf_experts.IDS` are 80
LONG_PHI = {
    "original_max_position_embeddings": ORIGINAL,
    "rope_parameters": {
        **{"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": ORIGINAL},
        **{"short_factor": [1 + n / 16 for n in range(24)], "long_factor": [2 + n / 4 for n in range(24)]},
        "partial_rotary_factor": 0.75,
    },
}


def made(family, seed=1, scale=0.3, **changes):
    """Return a random float32 model whose vectors are those of a bfloat16 one, as in what is converted."""
    kind = CLASSES.get(family, family)
    model = tiny(kind, seed)
    fields = type(model.config).__dataclass_fields__
    rope = {"rope_type": "default", "rope_theta": 5e4}
    chosen = {**_SIZES, "rope_parameters": rope, **OF_A_FAMILY.get(family, {}), **changes}
    model = tiny(kind, seed, **{key: value for key, value in chosen.items() if key in fields})
    model.family = family
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(scale if ".layers." in name else 1.0)
            if parameter.ndim == 1 or "norm" in name:
                # One is added to weights of norms in float32, which leaves no bits of the smallest.
                parameter.copy_(torch.where(parameter.abs() < 2**-16, 0, parameter.bfloat16()))
    model.set_attn_implementation("eager")  # others leave out the bounds on Gemma 2's scores
    return model


def mixed(name):
    """As llama.cpp's Q4_K_M, and other formats beside it."""
    part = name.split(".")[-2]
    if part in ("attn_v", "attn_output", "output"):
        return Kind.Q6_K
    return {"ffn_down": Kind.Q8_0, "attn_k": Kind.Q5_0}.get(part, Kind.Q4_K)


def write_family(
    path, model, formats=mixed, *, leave_out=(), fused=False, tokenizer=TOKENIZER, merges=MERGES, **metadata
):
    """Write a model; return its path.

    `formats`: for a tensor's name in GGUF the blocks in which it is written (`GGMLQuantizationType` or None); the model
    then gets the weights that they stand for. Other tensors are float32. `leave_out`: names of tensors. `fused`:
    queries, keys and values are one tensor. `metadata`: keys, "__" for dots, those of the architecture without its
    name, beside those that every file has; None removes one.
    """
    config, family = model.config, getattr(model, "family", model.config.model_type)
    architecture, own = OF_PICTURES[family] if family in OF_PICTURES else (ARCHITECTURES[family], {})
    prefix = gguf.MODEL_ARCH_NAMES[architecture]
    writer = gguf.GGUFWriter(str(path), prefix)
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name == "lm_head.weight" and config.tie_word_embeddings:
                continue
            stem, _, kind = name.rpartition(".")
            if stem.endswith("act_fn"):  # Apertus', which the metadata has
                continue
            theirs = f"{names.get_name(stem)}.{kind}"
            assert not theirs.startswith("None"), name
            if theirs in leave_out:
                continue
            if fused and ".attn_" in theirs and theirs.split("attn_")[1][0] in "qkv":
                if ".attn_q." in theirs:
                    _write_fused(writer, model.get_submodule(stem.removesuffix(".q_proj")), theirs, kind, formats)
                continue
            written = _as_in_files(tensor, config, family, name)
            form = formats(theirs) if tensor.ndim > 1 and "norm" not in theirs else None
            if form is None:
                writer.add_tensor(theirs, written.contiguous().numpy())
                continue
            raw = blocks(written.contiguous().numpy(), form)
            writer.add_tensor(theirs, raw, raw_dtype=form)
            tensor.copy_(_as_in_models(torch.from_numpy(dequantize(raw, form)), config, family, stem))
    for length in ("short", "long") if config.rope_parameters.get("rope_type") == "longrope" else ():
        name = f"rope_factors_{length}.weight"
        if name not in leave_out:
            writer.add_tensor(name, np.array(config.rope_parameters[f"{length}_factor"], dtype=np.float32))
    _describe(writer, model, family)
    describe_tokenizer(writer, config, tokenizer, merges)
    if config.pad_token_id is not None:
        writer.add_pad_token_id(config.pad_token_id)
    change_metadata(writer, prefix, own | metadata)
    write_out(writer)
    return path


def _write_fused(writer, attention, theirs, kind, formats):
    """Write the weights or biases of queries, keys and values as one tensor."""
    theirs = theirs.replace("attn_q.", "attn_qkv.")
    parts = [getattr(getattr(attention, f"{each}_proj"), kind) for each in "qkv"]
    form, whole = formats(theirs) if kind == "weight" else None, torch.cat(parts)
    if form is None:
        writer.add_tensor(theirs, whole.numpy())
        return
    raw = blocks(whole.numpy(), form)
    writer.add_tensor(theirs, raw, raw_dtype=form)
    for part, own in zip(parts, torch.from_numpy(dequantize(raw, form)).split([len(p) for p in parts]), strict=True):
        part.copy_(own)


def _as_in_files(tensor, config, family, name):
    stem = name.rpartition(".")[0]
    if family in _PLUS_ONE and name.endswith("norm.weight"):
        return tensor + 1
    if stem.endswith("query_key_value"):  # heads have their query, key and value together
        return tensor.view(config.num_attention_heads, 3, -1, *tensor.shape[1:]).transpose(0, 1).reshape(tensor.shape)
    if (heads := _heads(config, family, stem)) is None:
        return tensor
    return in_files_order(tensor, heads)


def _as_in_models(tensor, config, family, stem):
    if stem.endswith("query_key_value"):
        return tensor.view(3, config.num_attention_heads, -1, *tensor.shape[1:]).transpose(0, 1).reshape(tensor.shape)
    if (heads := _heads(config, family, stem)) is None:
        return tensor
    return in_models_order(tensor, heads)


def _heads(config, family, stem):
    if family not in _INTERLEAVED or not stem.endswith(("q_proj", "k_proj")):
        return None
    return config.num_attention_heads if stem.endswith("q_proj") else config.num_key_value_heads


def _describe(writer, model, family):
    """Write what the converter writes of a family, and nothing that it leaves to llama.cpp."""
    config = model.config
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    ropes = config.rope_parameters
    rope = ropes.get("full_attention", ropes)
    describe_sizes(writer, config)
    if family in ("starcoder2", "cohere2", "cohere", "olmo", "gpt_neox", "phi", "stablelm", "nemotron", "jais2"):
        names = {"starcoder2": "norm_epsilon", "nemotron": "norm_eps"}
        writer.add_layer_norm_eps(1e-5 if family == "olmo" else getattr(config, names.get(family, "layer_norm_eps")))
    if hasattr(config, "rms_norm_eps") or family == "nemotron":
        writer.add_layer_norm_rms_eps(config.norm_eps if family == "nemotron" else config.rms_norm_eps)
    if family not in ("gemma2", "gemma", "gpt_neox", "phi"):
        writer.add_rope_freq_base(rope["rope_theta"])
    if family in ("gemma2", "gemma3_text", "glm4", "gemma", "ernie4_5", "hunyuan_v1_dense", "seed_oss", "qwen3"):
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if family in ("nemotron", "ministral3", "mistral_small"):
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if family in (
        *("phi3", "granite", "smollm3", "cohere2", "glm4", "arcee", "ministral3", "mistral_small", "exaone"),
        *("glm", "gpt_neox", "phi", "stablelm", "nemotron", "jais2", "apertus"),
    ):
        writer.add_rope_dimension_count(int(head_dim * rope.get("partial_rotary_factor", 1.0)))
    if family in ("gemma2", "gemma3_text", "cohere2", "olmo3") or (family == "exaone4" and config.sliding_window):
        writer.add_sliding_window(config.sliding_window)
    if family == "exaone4" and config.sliding_window:
        writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in config.layer_types])
    if family == "hunyuan_v1_dense":
        writer.add_rope_scaling_type(gguf.RopeScalingType.NONE)
        writer.add_rope_scaling_factor(1.0)
    if family == "olmo3":
        writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in config.layer_types])
        writer.add_rope_freq_base_swa(ropes["sliding_attention"]["rope_theta"])
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if family == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    if family == "phi3":
        writer.add_rope_scaling_orig_ctx_len(config.original_max_position_embeddings)
        if rope["rope_type"] == "longrope":
            original = config.original_max_position_embeddings
            stretched = math.log(config.max_position_embeddings / original) / math.log(original)
            writer.add_rope_scaling_attn_factors(math.sqrt(1 + stretched))
        writer.add_sliding_window(config.sliding_window or 0)
    if family == "ministral3":
        writer.add_rope_scaling_yarn_beta_fast(rope["beta_fast"])
        writer.add_rope_scaling_yarn_beta_slow(rope["beta_slow"])
        writer.add_rope_scaling_yarn_log_mul(rope["mscale_all_dim"])
        writer.add_attn_temperature_scale(rope["llama_4_scaling_beta"])
    if family in ("gpt_neox", "stablelm"):
        writer.add_parallel_residual(config.use_parallel_residual)
    if family == "apertus":
        for part in ("alpha_p", "alpha_n", "beta", "eps"):
            each = [getattr(layer.mlp.act_fn, part).item() for layer in model.model.layers]
            getattr(writer, f"add_xielu_{part}")(each)
    if family == "granite":
        writer.add_attention_scale(config.attention_multiplier)
    if family in ("granite", "minicpm"):
        writer.add_embedding_scale(config.embedding_multiplier)
        writer.add_residual_scale(config.residual_multiplier)
    if family in ("granite", "minicpm", "cohere2", "cohere"):
        writer.add_logit_scale(config.logit_scale if family.startswith("cohere") else config.logits_scaling)
    if family in ("cohere2", "cohere", "nemotron"):
        writer.add_rope_scaling_type(gguf.RopeScalingType.NONE)
