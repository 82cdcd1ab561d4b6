"""Tiny models of Gemma 3n as GGUF files, in the form that llama.cpp's converter gives them."""

import gguf
import torch
from gguf import GGMLQuantizationType as Kind
from gguf.quants import dequantize

from tests.toys.every_family import tiny
from tests.toys.gguf_experts import MERGES, TOKENIZER
from tests.toys.gguf_file import blocks, change_metadata, describe_sizes, describe_tokenizer, write_out
from tests.toys.models import BOS_ID, EOS_ID

_FULL, _SLIDING = "full_attention", "sliding_attention"
_SIZES = {
    **{"vocab_size": len(TOKENIZER), "vocab_size_per_layer_input": len(TOKENIZER), "hidden_size": 256},
    **{"intermediate_size": 512, "head_dim": 64, "num_attention_heads": 4, "num_key_value_heads": 2},
    **{"sliding_window": 20, "tie_word_embeddings": True, "final_logit_softcapping": 20.0, "num_hidden_layers": 5},
    **{"num_kv_shared_layers": 2, "layer_types": [_SLIDING, _SLIDING, _FULL, _SLIDING, _FULL], "laurel_rank": 32},
    **{"hidden_size_per_layer_input": 32, "activation_sparsity_pattern": [0.95, 0.5, 0.0, 0.0, 0.0]},
    **{"bos_token_id": BOS_ID, "eos_token_id": EOS_ID, "pad_token_id": None},
    "rope_parameters": {
        _SLIDING: {"rope_type": "default", "rope_theta": 1e4},
        _FULL: {"rope_type": "default", "rope_theta": 1e6},
    },
}
OF_LLAMA_CPP = {
    **{"num_hidden_layers": 25, "num_kv_shared_layers": 5, "layer_types": ([_SLIDING] * 4 + [_FULL]) * 5},
    **{"activation_sparsity_pattern": [0.95] * 10 + [0.0] * 15, "laurel_rank": 64, "hidden_size_per_layer_input": 256},
    **{"final_logit_softcapping": 30.0, "intermediate_size": 256},
}
"""What llama.cpp takes for granted, whatever a file says."""
_NUMBERS = (".altup.", ".laurel.", "altup_projections", "altup_unembed_projections", "per_layer_model_projection")
_LISTS = {"model.altup_projections": "altup_proj", "model.altup_unembed_projections": "altup_unembd_proj"}
_OF_KEYS = ("k_proj", "v_proj", "k_norm")


def made(seed=1, scale=0.3, **changes):
    """Return a random float32 model whose numbers that are not in blocks are those of a bfloat16 one."""
    model = tiny("gemma3n_text", seed, **_SIZES | changes)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(scale if ".layers." in key and ".altup." not in key else 1.0)
            if key.endswith("q_norm.weight"):
                parameter.mul_(0.3)  # scores have no factor: with larger ones each query chooses one key
            if parameter.ndim == 1 or any(part in key for part in _NUMBERS):
                parameter.copy_(parameter.bfloat16())
    return model


def mixed(name):
    """As llama.cpp's Q4_K_M, and other formats beside it; what it keeps as it is is left."""
    part = name.split(".")[-2]
    if part.startswith(("altup", "laurel")) or part == "per_layer_model_proj":
        return None
    if part in ("attn_v", "attn_output", "token_embd", "output"):
        return Kind.Q6_K
    if part in ("proj", "ffn_down"):
        return Kind.Q8_0
    return {"attn_k": Kind.Q5_0, "per_layer_token_embd": Kind.Q5_0}.get(part, Kind.Q4_K)


def write_gemma3n(path, model, formats=mixed, *, leave_out=(), unread=False, tokenizer=TOKENIZER, **metadata):
    """Write a model; return its path. The arguments are those of `write_gemma4`."""
    config = model.config
    writer = gguf.GGUFWriter(str(path), "gemma3n")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GEMMA3N, config.num_hidden_layers)
    written = {}
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            stem, _, kind = name.rpartition(".")
            if (name == "lm_head.weight" and config.tie_word_embeddings) or stem.rpartition(".")[0] in _LISTS:
                continue
            if kind == "correct_output_scale":
                stem, kind = name, "weight"
            theirs = f"{names.get_name(stem)}.{kind}"
            assert not theirs.startswith("None"), name
            form = formats(theirs) if tensor.ndim > 1 else None
            if form is None:
                written[theirs] = tensor.contiguous().numpy(), None
                continue
            raw = blocks(tensor.contiguous().numpy(), form)
            written[theirs] = raw, form
            tensor.copy_(torch.from_numpy(dequantize(raw, form)))
        for module, theirs in _LISTS.items():
            matrices = torch.stack([each.weight for each in model.get_submodule(module)])
            written[f"{theirs}.weight"] = matrices.contiguous().numpy(), None
    if unread:
        written |= _unread(config, names, written)
    for theirs, (numbers, form) in written.items():
        if theirs not in leave_out:
            writer.add_tensor(theirs, numbers, raw_dtype=form)
    _describe(writer, config)
    describe_tokenizer(writer, config, tokenizer, MERGES)
    change_metadata(writer, "gemma3n", metadata)
    write_out(writer)
    return path


def _unread(config, names, written):
    """Return what a file has of keys that no layer reads: those of the first layer, reversed."""
    found = {}
    for index in range(config.num_hidden_layers - config.num_kv_shared_layers, config.num_hidden_layers):
        for part in _OF_KEYS:
            numbers, form = written[f"{names.get_name(f'model.layers.0.self_attn.{part}')}.weight"]
            found[f"{names.get_name(f'model.layers.{index}.self_attn.{part}')}.weight"] = numbers[::-1].copy(), form
    return found


def _describe(writer, config):
    """Write what the converter writes, in its order."""
    describe_sizes(writer, config)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters[_FULL]["rope_theta"])
    writer.add_final_logit_softcapping(config.final_logit_softcapping)
    writer.add_sliding_window(config.sliding_window)
    writer.add_altup_active_idx(config.altup_active_idx)
    writer.add_altup_num_inputs(config.altup_num_inputs)
    writer.add_embedding_length_per_layer_input(config.hidden_size_per_layer_input)
    writer.add_shared_kv_layers(config.num_kv_shared_layers)
    normal = torch.distributions.normal.Normal(0, 1)
    shares = [torch.tensor(each, dtype=torch.float32) for each in config.activation_sparsity_pattern]
    writer.add_activation_sparsity_scale([normal.icdf(share).item() for share in shares])
    writer.add_sliding_window_pattern([kind == _SLIDING for kind in config.layer_types])
