"""Tiny models of Gemma 4 as GGUF files, in the form that llama.cpp's converter gives them."""

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from gguf.quants import dequantize

from tests.toys.every_family import EXPERTS_BESIDE, tiny
from tests.toys.gguf_experts import MERGES, TOKENIZER
from tests.toys.gguf_file import blocks, change_metadata, describe_sizes, describe_tokenizer, write_out
from tests.toys.models import BOS_ID, EOS_ID

needs_names = pytest.mark.skipif(
    not hasattr(gguf.MODEL_ARCH, "GEMMA4"),
    reason="this release of the gguf package has no names for tensors of Gemma 4",
)
_FULL, _SLIDING = "full_attention", "sliding_attention"
_SIZES = {
    **{"vocab_size": len(TOKENIZER), "vocab_size_per_layer_input": len(TOKENIZER), "hidden_size": 256},
    **{"intermediate_size": 256, "head_dim": 64, "global_head_dim": 128, "num_attention_heads": 4},
    **{"num_key_value_heads": 2, "sliding_window": 20, "tie_word_embeddings": True, "final_logit_softcapping": 20.0},
    **{"bos_token_id": BOS_ID, "eos_token_id": EOS_ID, "pad_token_id": None},
    "rope_parameters": {
        _SLIDING: {"rope_type": "default", "rope_theta": 1e4},
        _FULL: {"rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 0.25},
    },
}
_LARGE = {
    **{"layer_types": [_SLIDING, _SLIDING, _FULL], "num_hidden_layers": 3, "num_kv_shared_layers": 0},
    **{"hidden_size_per_layer_input": 0, "attention_k_eq_v": True, "num_global_key_value_heads": 1},
}
MODELS = {
    "shared": {
        **{"layer_types": [_SLIDING, _SLIDING, _FULL, _SLIDING, _FULL], "num_hidden_layers": 5},
        **{"num_kv_shared_layers": 2, "hidden_size_per_layer_input": 32},
    },
    "large": _LARGE,
    "experts": _LARGE | EXPERTS_BESIDE | {"num_experts": 8, "top_k_experts": 2, "moe_intermediate_size": 256},
}
"""As the small published models, the large ones, and the one with experts."""
WIDE = {"use_double_wide_mlp": True}
_PLAIN = ("router.proj.weight", "per_layer_model_projection.weight")
_OF_KEYS = ("k_proj", "v_proj", "k_norm")


def made(name, seed=1, scale=0.3, **changes):
    """Return a random float32 model whose numbers that are not in blocks are those of a bfloat16 one."""
    model = tiny("gemma4_text", seed, **_SIZES | MODELS[name] | changes)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.endswith("router.proj.weight"):
                parameter.mul_(4)  # so that rounding sends few tokens to other experts
            elif parameter.ndim > 1:
                parameter.mul_(scale if ".layers." in key else 1.0)
            if key.endswith("q_norm.weight"):
                parameter.mul_(0.3)  # scores have no factor: with larger ones each query chooses one key
            if parameter.ndim == 1 or key.endswith(_PLAIN):
                parameter.copy_(parameter.bfloat16())
        for index, layer in enumerate(model.model.layers):
            layer.layer_scalar.fill_(torch.tensor(0.6 + 0.07 * index).bfloat16().item())
    return model


def mixed(name):
    """As llama.cpp's Q4_K_M, and other formats beside it; what it keeps as it is is left."""
    part = name.split(".")[-2]
    if part in ("ffn_gate_inp", "per_layer_model_proj"):
        return None
    if part in ("attn_v", "attn_output", "token_embd", "output"):
        return Kind.Q6_K
    if part in ("proj", "ffn_down", "ffn_down_exps"):
        return Kind.Q8_0
    return {"attn_k": Kind.Q5_0, "per_layer_token_embd": Kind.Q5_0}.get(part, Kind.Q4_K)


def write_gemma4(path, model, formats=mixed, *, leave_out=(), unread=False, tokenizer=TOKENIZER, **metadata):
    """Write a model; return its path.

    `formats`: for a tensor's name in GGUF the blocks in which it is written (`GGMLQuantizationType` or None); the model
    then gets the weights that they stand for. Other tensors are float32. `leave_out`: names of tensors. `unread`: write
    keys and values of the layers that read those of others, too, as published files have them. `metadata`: keys, "__"
    for dots, those of the architecture without its name; None removes one.
    """
    config = model.config
    writer = gguf.GGUFWriter(str(path), "gemma4")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GEMMA4, config.num_hidden_layers)
    written = {}
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name == "lm_head.weight" and config.tie_word_embeddings:
                continue
            theirs = _name(names, name)
            if theirs in leave_out:
                continue
            form = formats(theirs) if tensor.ndim > 1 else None
            if form is None:
                written[theirs] = tensor.contiguous().numpy(), None
                continue
            raw = blocks(tensor.flatten(0, -2).contiguous().numpy(), form)
            written[theirs] = raw.reshape(*tensor.shape[:-1], -1), form
            tensor.copy_(torch.from_numpy(dequantize(raw, form)).view(tensor.shape))
    if unread:
        written |= _unread(config, names, written)
    for theirs, (numbers, form) in written.items():
        writer.add_tensor(theirs, numbers, raw_dtype=form)
    if "rope_freqs.weight" not in leave_out:
        writer.add_tensor("rope_freqs.weight", divisors(config))
    _describe(writer, config)
    describe_tokenizer(writer, config, tokenizer, MERGES)
    change_metadata(writer, "gemma4", metadata)
    write_out(writer)
    return path


def divisors(config):
    """Return what the file says of the angles of layers that see all keys, (head_dim / 2,) float32."""
    half = config.per_layer_config[config.num_hidden_layers - 1].head_dim // 2
    turned = int(half * config.rope_parameters[_FULL]["partial_rotary_factor"])
    return np.array([1.0] * turned + [1e30] * (half - turned), dtype=np.float32)


def _name(names, name):
    stem, _, kind = name.rpartition(".")
    if kind == "layer_scalar" or ".experts." in name:
        return f"{names.get_name(name)}.weight"
    if stem.endswith("router") and kind in ("scale", "per_expert_scale"):
        return f"blk.{name.split('.')[2]}.{'ffn_gate_inp' if kind == 'scale' else 'ffn_down_exps'}.scale"
    assert names.get_name(stem) is not None, name
    return f"{names.get_name(stem)}.{kind}"


def _unread(config, names, written):
    """Return what a file has of keys that no layer reads: those of the layer of the same kind before, reversed."""
    found = {}
    own = config.num_hidden_layers - config.num_kv_shared_layers
    for index in range(own, config.num_hidden_layers):
        source = max(each for each in range(own) if config.layer_types[each] == config.layer_types[index])
        for part in _OF_KEYS:
            numbers, form = written[f"{names.get_name(f'model.layers.{source}.self_attn.{part}')}.weight"]
            found[f"{names.get_name(f'model.layers.{index}.self_attn.{part}')}.weight"] = numbers[::-1].copy(), form
    return found


def _describe(writer, config):
    """Write what the converter writes, in its order."""
    layers, shared = config.num_hidden_layers, config.num_kv_shared_layers
    windowed = [kind == _SLIDING for kind in config.layer_types]
    whole, local = config.per_layer_config[layers - 1], config.per_layer_config[windowed.index(True)]
    describe_sizes(writer, local)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters[_FULL]["rope_theta"])
    writer.add_rope_freq_base_swa(config.rope_parameters[_SLIDING]["rope_theta"])
    if config.final_logit_softcapping:
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    writer.add_sliding_window(config.sliding_window)
    writer.add_shared_kv_layers(shared)
    writer.add_embedding_length_per_layer_input(config.hidden_size_per_layer_input)
    writer.add_sliding_window_pattern(windowed)
    writer.add_key_length(whole.head_dim)
    writer.add_value_length(whole.head_dim)
    writer.add_key_length_swa(local.head_dim)
    writer.add_value_length_swa(local.head_dim)
    if config.enable_moe_block:
        writer.add_expert_count(config.num_experts)
        writer.add_expert_used_count(config.top_k_experts)
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    if config.use_double_wide_mlp:
        writer.kv_data[0].pop("gemma4.feed_forward_length")
        width = config.intermediate_size
        writer.add_feed_forward_length([width] * (layers - shared) + [2 * width] * shared)
    if whole.num_key_value_heads != local.num_key_value_heads:
        writer.kv_data[0].pop("gemma4.attention.head_count_kv")
        heads = [local.num_key_value_heads if each else whole.num_key_value_heads for each in windowed]
        writer.add_head_count_kv(heads)
    writer.add_rope_dimension_count(whole.head_dim)
    writer.add_rope_dimension_count_swa(local.head_dim)
