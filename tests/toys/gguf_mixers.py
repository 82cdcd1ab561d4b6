"""Tiny models with short convolutions, Mamba2 or Mamba as GGUF files, as llama.cpp's converter writes them."""

import gguf
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
    write_out,
)
from tests.toys.models import BOS_ID, EOS_ID

_CONVOLUTIONS, _MAMBA = ["conv", "conv", "full_attention", "conv"], ["linear_attention", "full_attention"] * 2
_SIZES = {
    **{"vocab_size": len(TOKENIZER), "hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4},
    **{"num_key_value_heads": 2, "num_hidden_layers": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 256},
    **{"bos_token_id": BOS_ID, "eos_token_id": EOS_ID, "pad_token_id": None, "tie_word_embeddings": True},
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e5},
}
_LFM2 = {"layer_types": _CONVOLUTIONS, "conv_L_cache": 3, "block_auto_adjust_ff_dim": False}
_GRANITE = {
    **{"layer_types": _MAMBA, "mamba_n_heads": 8, "mamba_d_head": 64, "mamba_d_state": 64, "mamba_n_groups": 1},
    **{"attention_multiplier": 0.1, "embedding_multiplier": 2.0, "logits_scaling": 4.0, "residual_multiplier": 0.5},
    **{"shared_intermediate_size": 512, "num_local_experts": 0, "num_experts_per_tok": 0},
}
_HALF = {"rope_type": "default", "rope_theta": 1e5, "partial_rotary_factor": 0.5}
_BAMBA = {
    **{"attn_layer_indices": [1, 3], "mamba_n_heads": 8, "mamba_d_head": 64, "mamba_d_state": 64, "mamba_n_groups": 2},
    **{"tie_word_embeddings": False, "rope_parameters": _HALF},
}
WHOLE = {"rope_parameters": _HALF | {"partial_rotary_factor": 1.0}}
_FALCON = {
    **{"mamba_d_ssm": 768, "mamba_n_heads": 12, "mamba_d_head": 64, "mamba_d_state": 64, "mamba_n_groups": 2},
    **{"num_hidden_layers": 2, "tie_word_embeddings": False, "head_dim": 64, "mamba_norm_before_gate": False},
    **{"mlp_multipliers": [1.0] * 2, "ssm_multipliers": [1.0] * 5},
    **dict.fromkeys(
        (
            *(
                "embedding_multiplier",
                "lm_head_multiplier",
                "key_multiplier",
                "ssm_in_multiplier",
                "ssm_out_multiplier",
            ),
            *("attention_in_multiplier", "attention_out_multiplier"),
        ),
        1.0,
    ),
}
_NEMOTRON = {
    **{"mamba_num_heads": 8, "mamba_head_dim": 64, "ssm_state_size": 64, "n_groups": 2, "head_dim": 64},
    **{"layers_block_type": ["linear_attention", "mlp", "linear_attention", "full_attention", "mlp"]},
    **{"tie_word_embeddings": False, "time_step_min": 1e-30},
}
_MAMBA_1 = {"state_size": 16, "expand": 2}
_JAMBA = {
    **{"attn_layer_period": 3, "attn_layer_offset": 1, "num_experts": 1, "num_experts_per_tok": 1},
    **{"mamba_d_state": 16, "tie_word_embeddings": False},
}
FAMILIES = {
    "mamba": ("mamba", gguf.MODEL_ARCH.MAMBA, _MAMBA_1),
    "falcon_mamba": ("falcon_mamba", gguf.MODEL_ARCH.MAMBA, _MAMBA_1 | {"tie_word_embeddings": False}),
    "jamba": ("jamba", gguf.MODEL_ARCH.JAMBA, _JAMBA),
    "bamba": ("bamba", gguf.MODEL_ARCH.GRANITE_HYBRID, _BAMBA),
    "falcon_h1": ("falcon_h1", gguf.MODEL_ARCH.FALCON_H1, _FALCON),
    "nemotron_h": ("nemotron_h", gguf.MODEL_ARCH.NEMOTRON_H, _NEMOTRON),
    "nemotron_h_moe": (
        "nemotron_h",
        gguf.MODEL_ARCH.NEMOTRON_H_MOE,
        {
            **_NEMOTRON,
            "layers_block_type": ["linear_attention", "moe", "linear_attention", "full_attention", "moe"],
            **{"n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 256},
            **{"moe_shared_expert_intermediate_size": 512, "routed_scaling_factor": 1.5},
        },
    ),
    "lfm2": ("lfm2", gguf.MODEL_ARCH.LFM2, _LFM2),
    "lfm2_moe": ("lfm2_moe", gguf.MODEL_ARCH.LFM2MOE, _LFM2 | {"num_experts": 8, "num_dense_layers": 1}),
    "granite4": ("granitemoehybrid", gguf.MODEL_ARCH.GRANITE_HYBRID, _GRANITE),
    "granite4_moe": (
        "granitemoehybrid",
        gguf.MODEL_ARCH.GRANITE_HYBRID,
        _GRANITE | {"num_local_experts": 8, "num_experts_per_tok": 2, "intermediate_size": 256},
    ),
}
"""By the names that tests have for them: the family in transformers, the architecture in GGUF, and sizes."""
_PLAIN = (".gate.weight", ".router.weight", ".x_proj.weight", ".dt_proj.weight")  # which are never in blocks


def made(name, seed=1, scale=0.3, **changes):
    """Return a random float32 model whose numbers that are not in blocks are those of a bfloat16 one."""
    family, _, own = FAMILIES[name]
    fields = {*type(tiny(family).config).__dataclass_fields__} - ({"layer_types"} if "nemotron" in name else set())
    model = tiny(family, seed, **{key: value for key, value in (_SIZES | own | changes).items() if key in fields})
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(scale if ".layers." in key and "conv1d" not in key else 1.0)
            if parameter.ndim == 1 or key.endswith(_PLAIN) or parameter.ndim == 3 and parameter.shape[1] == 1:
                parameter.copy_(parameter.bfloat16())
            if key.endswith(("mamba.D", "mixer.D")):
                parameter.mul_(4)
        for key, buffer in model.named_buffers():
            if key.endswith(("expert_bias", "correction_bias")):  # zeros, if nothing is done
                buffer.copy_(torch.randn(buffer.shape, generator=torch.Generator().manual_seed(seed)) / 4)
    return model


def mixed(name):
    """As llama.cpp's Q4_K_M, and other formats beside it; what it keeps in float32 is left."""
    part = name.split(".", 2)[-1].rpartition(".")[0] or name.rpartition(".")[0]
    if part in ("ffn_gate_inp", "ssm_x", "ssm_dt", "ssm_conv1d", "shortconv.conv", "ssm_norm") or name.endswith(
        ("ssm_a", "ssm_d")
    ):
        return None
    if part in ("attn_v", "attn_output", "token_embd", "output"):
        return Kind.Q6_K
    own = {"ffn_down": Kind.Q8_0, "attn_k": Kind.Q5_0, "ssm_out": Kind.Q5_K, "shortconv.out_proj": Kind.Q5_K}
    return (own | {"ffn_up": Kind.Q5_0, "ffn_up_exps": Kind.Q5_0, "ffn_down_shexp": Kind.Q6_K}).get(part, Kind.Q4_K)


def write_mixers(
    path, model, formats=mixed, *, leave_out=(), further=None, tokenizer=TOKENIZER, merges=MERGES, **metadata
):
    """Write a model; return its path.

    `formats`: for a tensor's name in GGUF the blocks in which it is written (`GGMLQuantizationType` or None); the model
    then gets the weights that they stand for. Other tensors are float32. `leave_out`: names of tensors. `further`:
    tensors beside the model's, by name. `metadata`: keys, "__" for dots, those of the architecture without its name;
    None removes one.
    """
    config = model.config
    architecture = _architecture_of(config)
    prefix = gguf.MODEL_ARCH_NAMES[architecture]
    writer = gguf.GGUFWriter(str(path), prefix)
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name == "lm_head.weight" and config.tie_word_embeddings:
                continue
            places = torch.arange(tensor.numel()).view(tensor.shape)
            for theirs, where in _in_files(config, names, name, places):
                if theirs in leave_out:
                    continue
                written = tensor.flatten()[where]
                form = formats(theirs) if written.ndim > 1 else None
                if form is None:
                    changed = -torch.exp(written) if name.endswith("A_log") else written
                    writer.add_tensor(theirs, changed.contiguous().numpy())
                    continue
                raw = blocks(written.flatten(0, -2).contiguous().numpy(), form)
                writer.add_tensor(theirs, raw.reshape(*where.shape[:-1], -1), raw_dtype=form)
                tensor.view(-1)[where.flatten()] = torch.from_numpy(dequantize(raw, form)).flatten()
    for theirs, tensor in (further or {}).items():
        writer.add_tensor(theirs, tensor.numpy())
    _describe(writer, config)
    describe_tokenizer(writer, config, tokenizer, merges)
    change_metadata(writer, prefix, metadata)
    write_out(writer)
    return path


def _architecture_of(config):
    found = [each for family, each, _ in FAMILIES.values() if family == config.model_type]
    return found["moe" in config.layers_block_type] if config.model_type == "nemotron_h" else found[0]


def _in_files(config, names, name, places):
    """Yield what a file has of a tensor: names, and the places of the tensor from which its numbers come."""
    module, _, end = name.rpartition(".")
    layer = ".".join(module.split(".")[:3])
    in_file = f"blk.{layer.rpartition('.')[2]}.ffn_"
    last = "_shexp" if getattr(config, "num_local_experts", 0) else ""
    granite = config.model_type in ("granitemoehybrid", "bamba")  # whose queries and keys are in another order

    def theirs(own, end="weight"):
        if config.model_type == "nemotron_h":  # as published checkpoints have it
            own = own.replace("model.", "backbone.")
        found = names.get_name(own)
        assert found is not None, own
        return f"{found}.{end}"

    if config.model_type == "falcon_h1" and module.endswith("pre_ff_layernorm"):
        yield names.get_name(name), places  # without ".weight"
    elif name == "lm_head.weight":
        yield "output.weight", places
    elif end in ("A_log", "D") and config.model_type in ("mamba", "falcon_mamba", "jamba"):
        yield f"blk.{layer.rpartition('.')[2]}.ssm_{'a' if end == 'A_log' else 'd'}", places
    elif end in ("A_log", "D"):
        yield f"blk.{layer.rpartition('.')[2]}.ssm_{'a' if end == 'A_log' else 'd'}", places[:, None]
    elif end == "dt_bias":
        yield f"blk.{layer.rpartition('.')[2]}.ssm_dt.bias", places
    elif module.endswith(("mamba.norm", "mixer.norm")):
        groups = config.n_groups if config.model_type == "nemotron_h" else config.mamba_n_groups
        yield theirs(module), places.view(groups, -1)
    elif places.ndim == 3 and places.shape[1] == 1:  # convolutions
        yield theirs(module), places[:, 0]
    elif end == "expert_bias":
        yield theirs(f"{layer}.feed_forward.expert_bias", "bias"), places
    elif module.endswith("block_sparse_moe.router"):
        yield theirs(f"{module}.layer"), places
    elif module.endswith("shared_mlp.input_linear"):
        gate, up = places.chunk(2)
        yield f"{in_file}gate{last}.weight", gate
        yield f"{in_file}up{last}.weight", up
    elif module.endswith("shared_mlp.output_linear"):
        yield f"{in_file}down{last}.weight", places
    elif end == "e_score_correction_bias":
        yield f"blk.{layer.rpartition('.')[2]}.exp_probs_b.bias", places
    elif end == "up_proj":
        yield f"{in_file}up_exps.weight", places
    elif end == "gate_up_proj":
        gate, up = places.chunk(2, dim=1)
        yield f"{in_file}gate_exps.weight", gate
        yield f"{in_file}up_exps.weight", up
    elif end == "down_proj":
        yield f"{in_file}down_exps.weight", places
    elif granite and end == "weight" and module.endswith(("q_proj", "k_proj")):
        heads = config.num_attention_heads if module.endswith("q_proj") else config.num_key_value_heads
        yield theirs(module), in_files_order(places, heads)
    else:
        yield theirs(module, end), places


def _describe(writer, config):
    if config.model_type in ("mamba", "falcon_mamba", "jamba"):
        _describe_mamba(writer, config)
        return
    if config.model_type in ("bamba", "falcon_h1", "nemotron_h"):
        describe_sizes(writer, config)
        _describe_mixers(writer, config)
        return
    granite = config.model_type == "granitemoehybrid"
    describe_sizes(writer, config)
    prefix = writer.arch
    writer.kv_data[0].pop(f"{prefix}.attention.head_count_kv")
    heads = config.num_key_value_heads
    writer.add_head_count_kv([heads if kind == "full_attention" else 0 for kind in config.layer_types])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps if granite else config.norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if not granite:
        writer.add_shortconv_l_cache(config.conv_L_cache)
        if config.model_type == "lfm2_moe":
            writer.add_expert_count(config.num_experts)
            writer.add_expert_used_count(config.num_experts_per_tok)
            writer.add_expert_feed_forward_length(config.moe_intermediate_size)
            writer.add_leading_dense_block_count(config.num_dense_layers)
            writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
        return
    writer.add_expert_count(config.num_local_experts)
    writer.add_expert_used_count(config.num_experts_per_tok)
    writer.add_expert_shared_feed_forward_length(config.shared_intermediate_size)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_rope_scaling_finetuned(False)
    writer.add_attention_scale(config.attention_multiplier)
    writer.add_embedding_scale(config.embedding_multiplier)
    writer.add_residual_scale(config.residual_multiplier)
    writer.add_logit_scale(config.logits_scaling)
    writer.add_ssm_conv_kernel(config.mamba_d_conv)
    writer.add_ssm_state_size(config.mamba_d_state)
    writer.add_ssm_group_count(config.mamba_n_groups)
    writer.add_ssm_time_step_rank(config.mamba_n_heads)
    writer.add_ssm_inner_size(config.mamba_n_heads * config.mamba_d_head)


def _describe_mamba(writer, config):
    if config.model_type == "jamba":
        describe_sizes(writer, config)
        writer.kv_data[0].pop(f"{writer.arch}.attention.head_count_kv")
        period, offset = config.attn_layer_period, config.attn_layer_offset
        kinds = [index % period == offset for index in range(config.num_hidden_layers)]
        writer.add_head_count_kv([config.num_key_value_heads if each else 0 for each in kinds])
        writer.add_expert_count(config.num_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
        own = config.mamba_d_conv, config.mamba_d_state, config.mamba_expand, config.mamba_dt_rank, config.rms_norm_eps
    else:
        writer.add_block_count(config.num_hidden_layers)
        writer.add_context_length(2**20)
        writer.add_embedding_length(config.hidden_size)
        writer.add_feed_forward_length(0)
        writer.add_head_count(0)
        writer.add_ssm_dt_b_c_rms(config.model_type == "falcon_mamba")
        own = config.conv_kernel, config.state_size, config.expand, config.time_step_rank, config.layer_norm_epsilon
    taps, state, expand, rank, epsilon = own
    writer.add_ssm_conv_kernel(taps)
    writer.add_ssm_inner_size(expand * config.hidden_size)
    writer.add_ssm_state_size(state)
    writer.add_ssm_time_step_rank(rank)
    writer.add_layer_norm_rms_eps(epsilon)


def _describe_mixers(writer, config):
    """Write what the converter writes of families that are neither LFM2 nor Granite."""
    nemotron, bamba = config.model_type == "nemotron_h", config.model_type == "bamba"
    parts = ("mamba_num_heads", "mamba_head_dim", "ssm_state_size", "n_groups", "conv_kernel")
    usual = tuple(f"mamba_{part}" for part in ("n_heads", "d_head", "d_state", "n_groups", "d_conv"))
    heads, head, state, groups, taps = (getattr(config, each) for each in (parts if nemotron else usual))
    writer.add_ssm_conv_kernel(taps)
    writer.add_ssm_state_size(state)
    writer.add_ssm_group_count(groups)
    writer.add_ssm_time_step_rank(heads)
    writer.add_ssm_inner_size(heads * head)
    writer.add_layer_norm_rms_eps(config.layer_norm_epsilon if nemotron else config.rms_norm_eps)
    if nemotron:
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
    if not bamba:
        whole = getattr(config, "head_dim", config.hidden_size // config.num_attention_heads)
        writer.add_key_length(whole)
        writer.add_value_length(whole)
    if not nemotron:
        rope = config.rope_parameters
        writer.add_rope_freq_base(rope["rope_theta"])
    if config.model_type == "falcon_h1":
        return
    kinds = (
        config.layers_block_type
        if nemotron
        else [
            "full_attention" if index in config.attn_layer_indices else "" for index in range(config.num_hidden_layers)
        ]
    )
    prefix = writer.arch
    writer.kv_data[0].pop(f"{prefix}.attention.head_count_kv")
    writer.add_head_count_kv([config.num_key_value_heads if kind == "full_attention" else 0 for kind in kinds])
    writer.add_rope_scaling_finetuned(bamba)
    if bamba:
        whole = config.hidden_size // config.num_attention_heads
        writer.add_rope_dimension_count(int(whole * rope["partial_rotary_factor"]))
        return
    experts = "moe" in kinds
    writer.kv_data[0].pop(f"{prefix}.feed_forward_length")
    width = config.moe_intermediate_size if experts else config.intermediate_size
    writer.add_feed_forward_length([width if kind in ("mlp", "moe") else 0 for kind in kinds])
    if experts:
        writer.add_expert_used_count(config.num_experts_per_tok)
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)
        writer.add_expert_shared_feed_forward_length(config.moe_shared_expert_intermediate_size)
        writer.add_expert_count(config.n_routed_experts)
        writer.add_expert_shared_count(config.n_shared_experts)
        writer.add_expert_weights_norm(config.norm_topk_prob)
        writer.add_expert_weights_scale(config.routed_scaling_factor)
        writer.add_expert_group_count(config.n_group)
