"""Tiny models with gated delta nets as GGUF files, in the form that llama.cpp's converter gives them."""

import gguf
import torch
from gguf import GGMLQuantizationType as Kind
from gguf.quants import dequantize

from tests.toys.every_family import tiny
from tests.toys.gguf_experts import MERGES, TOKENIZER
from tests.toys.gguf_file import blocks, change_metadata, describe_sizes, describe_tokenizer, write_out
from tests.toys.models import BOS_ID, EOS_ID

ARCHITECTURES = {
    "qwen3_next": gguf.MODEL_ARCH.QWEN3NEXT,
    "qwen3_5_text": gguf.MODEL_ARCH.QWEN35,
    "qwen3_5_moe_text": gguf.MODEL_ARCH.QWEN35MOE,
}
EVERY = 4
SECTIONS = [3, 3, 2, 0]  # of the 8 pairs that are turned
SIZES = {
    **{"vocab_size": len(TOKENIZER), "hidden_size": 256, "intermediate_size": 512, "head_dim": 64},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": EVERY},
    **{"bos_token_id": BOS_ID, "eos_token_id": EOS_ID, "pad_token_id": None, "tie_word_embeddings": False},
    **{
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 256,
        "shared_expert_intermediate_size": 256,
    },
    **{
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 6,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
    },
    "layer_types": ["full_attention" if index % EVERY == EVERY - 1 else "linear_attention" for index in range(EVERY)],
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e5, "partial_rotary_factor": 0.25},
}


def made(family, seed=1, scale=0.3, **changes):
    """Return a random float32 model whose numbers that are not in blocks are those of a bfloat16 one."""
    fields = type(tiny(family).config).__dataclass_fields__
    model = tiny(family, seed, **{key: value for key, value in (SIZES | changes).items() if key in fields})
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(scale if ".layers." in name else 1.0)
            if parameter.ndim == 1 or any(
                part in name for part in (".gate.", "shared_expert_gate", "in_proj_a", "in_proj_b")
            ):
                parameter.copy_(torch.where(parameter.abs() < 2**-16, 0, parameter.bfloat16()))
    return model


def mixed(name):
    """As llama.cpp's Q4_K_M, and other formats beside it; what it keeps in float32 is left."""
    part = name.split(".")[-2]
    if part in ("ffn_gate_inp", "ffn_gate_inp_shexp", "ssm_conv1d", "ssm_beta", "ssm_alpha", "ssm_ba"):
        return None
    if part in ("attn_v", "attn_output", "output", "attn_gate"):
        return Kind.Q6_K
    return {"ffn_down": Kind.Q8_0, "attn_k": Kind.Q5_0, "ssm_out": Kind.Q5_K, "ffn_up_exps": Kind.Q5_0}.get(
        part, Kind.Q4_K
    )


def write_hybrid(
    path,
    model,
    formats=mixed,
    *,
    earlier=False,
    fused=False,
    leave_out=(),
    predicting=0,
    tokenizer=TOKENIZER,
    merges=MERGES,
    **metadata,
):
    """Write a model; return its path.

    `formats`: for a tensor's name in GGUF the blocks in which it is written (`GGMLQuantizationType` or None); the model
    then gets the weights that they stand for. Other tensors are float32. `earlier`: Qwen3-Next's queries, keys, values
    and gates in one matrix, as the first converter wrote them. `fused`: gates of experts and what stands beside them in
    one tensor. `leave_out`: names of tensors. `predicting`: layers behind the others, that predict further tokens.
    `metadata`: keys, "__" for dots, those of the architecture without its name; None removes one.
    """
    config = model.config
    prefix = gguf.MODEL_ARCH_NAMES[ARCHITECTURES[config.model_type]]
    writer = gguf.GGUFWriter(str(path), prefix)
    names = gguf.get_tensor_name_map(ARCHITECTURES[config.model_type], config.num_hidden_layers)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name == "lm_head.weight" and config.tie_word_embeddings:
                continue
            places = torch.arange(tensor.numel()).view(tensor.shape)
            for theirs, where in _in_files(config, names, name, places, earlier, fused):
                if theirs in leave_out:
                    continue
                written = tensor.flatten()[where]
                form = formats(theirs) if written.ndim > 1 else None
                if form is None:
                    writer.add_tensor(theirs, _changed(name, written).contiguous().numpy())
                    continue
                flat = written.flatten(0, -2).contiguous().numpy()
                raw = blocks(flat, form)
                writer.add_tensor(theirs, raw.reshape(*where.shape[:-1], -1), raw_dtype=form)
                tensor.view(-1)[where.flatten()] = torch.from_numpy(dequantize(raw, form)).flatten()
    for layer in range(config.num_hidden_layers, config.num_hidden_layers + predicting):
        for part in ("attn_norm", "nextn.enorm", "nextn.eh_proj", "ffn_up", "attn_q"):
            writer.add_tensor(f"blk.{layer}.{part}.weight", torch.ones(config.hidden_size).numpy())
    _describe(writer, config)
    if predicting:
        writer.kv_data[0].pop(f"{prefix}.block_count")
        writer.add_block_count(config.num_hidden_layers + predicting)
        writer.add_uint32(f"{prefix}.nextn_predict_layers", predicting)
    describe_tokenizer(writer, config, tokenizer, merges)
    change_metadata(writer, prefix, metadata)
    write_out(writer)
    return path


def _changed(name, tensor):
    """Return what the converter computes of the numbers of a tensor that is in no blocks."""
    if name.endswith("A_log"):
        return -torch.exp(tensor)
    if name.endswith("norm.weight") and not name.endswith("linear_attn.norm.weight"):
        return tensor + 1
    return tensor


def _in_files(config, names, name, places, earlier, fused):
    """Yield what a file has of a tensor: names, and the places of the tensor from which its numbers come."""
    module, _, end = name.rpartition(".")
    keys, values = config.linear_num_key_heads, config.linear_num_value_heads
    key_dim, value_dim, served = config.linear_key_head_dim, config.linear_value_head_dim, values // keys

    def theirs(own, end="weight"):
        found = names.get_name(own)
        assert found is not None, own
        return f"{found}.{end}"

    def tiled(rows, width):
        """Value heads as they lie beside each other, then those of a key head at its number."""
        if config.model_type == "qwen3_next":
            return rows
        return torch.cat([rows[width * h : width * (h + 1)] for r in range(served) for h in range(r, values, served)])

    layer = ".".join(module.split(".")[:3])
    if name.endswith("A_log"):
        yield names.get_name(f"{layer}.linear_attn.A_log"), tiled(places, 1)
    elif name.endswith("dt_bias"):
        yield theirs(f"{layer}.linear_attn.dt_proj", "bias"), tiled(places, 1)
    elif module.endswith("conv1d"):
        rows = places[:, 0]
        yield theirs(module), torch.cat([rows[: 2 * keys * key_dim], tiled(rows[2 * keys * key_dim :], value_dim)])
    elif module.endswith("in_proj_qkv"):
        yield theirs(module), torch.cat([places[: 2 * keys * key_dim], tiled(places[2 * keys * key_dim :], value_dim)])
    elif module.endswith("in_proj_z"):
        yield theirs(module), tiled(places, value_dim)
    elif module.endswith(("in_proj_a", "in_proj_b")):
        yield theirs(module), tiled(places, 1)
    elif module.endswith("linear_attn.out_proj"):
        yield theirs(module), tiled(places.t(), value_dim).t()
    elif module.endswith("in_proj_qkvz") and not earlier:
        heads = places.view(keys, -1, places.shape[1])
        ends = [0, key_dim, 2 * key_dim, 2 * key_dim + served * value_dim, heads.shape[1]]
        query, key, value, gate = (heads[:, a:b].flatten(0, 1) for a, b in zip(ends, ends[1:], strict=False))
        yield theirs(f"{layer}.linear_attn.in_proj_qkv"), torch.cat([query, key, value])
        yield theirs(f"{layer}.linear_attn.in_proj_z"), gate
    elif end == "gate_up_proj" and not fused:
        half = places.shape[1] // 2
        yield theirs(f"{module}.gate_proj"), places[:, :half]
        yield theirs(f"{module}.up_proj"), places[:, half:]
    elif module.endswith("experts"):
        yield theirs(name), places
    elif module.endswith("shared_expert_gate"):
        yield theirs(module), places[0]
    else:
        yield theirs(module, end), places


def _describe(writer, config):
    turned = int(config.head_dim * config.rope_parameters["partial_rotary_factor"])
    if not hasattr(config, "intermediate_size"):
        config.intermediate_size = 512
    describe_sizes(writer, config)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(turned)
    if config.model_type != "qwen3_next":
        writer.add_rope_dimension_sections(SECTIONS)
    if config.model_type != "qwen3_5_text":
        writer.add_expert_count(config.num_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)
        writer.add_expert_shared_feed_forward_length(config.shared_expert_intermediate_size)
    writer.add_ssm_conv_kernel(config.linear_conv_kernel_dim)
    writer.add_ssm_state_size(config.linear_key_head_dim)
    writer.add_ssm_group_count(config.linear_num_key_heads)
    writer.add_ssm_time_step_rank(config.linear_num_value_heads)
    writer.add_ssm_inner_size(config.linear_value_head_dim * config.linear_num_value_heads)
    writer.add_full_attention_interval(EVERY)
