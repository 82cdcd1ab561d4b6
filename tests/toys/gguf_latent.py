"""Tiny models with latent attention as GGUF files, in the form that llama.cpp's converter gives them."""

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from gguf.quants import dequantize

from tests.toys.every_family import tiny
from tests.toys.gguf_experts import MERGES, TOKENIZER
from tests.toys.gguf_file import blocks, change_metadata, describe_sizes, describe_tokenizer, write_out
from tests.toys.models import BOS_ID, EOS_ID

YARN = {
    **{"rope_type": "yarn", "rope_theta": 1e4, "factor": 8.0, "original_max_position_embeddings": 32},
    **{"beta_fast": 32.0, "beta_slow": 1.0, "mscale": 0.707, "mscale_all_dim": 0.707},
}
_RATES = tuple(f"{each}_proj.weight" for each in ("self_attn.b", "f_a", "f_b", "g_a", "g_b"))
_SIZES = {
    **{"vocab_size": len(TOKENIZER), "hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4},
    **{"num_key_value_heads": 4, "num_hidden_layers": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 256},
    **{"n_routed_experts": 8, "kv_lora_rank": 64, "q_lora_rank": 128, "qk_nope_head_dim": 64, "qk_rope_head_dim": 32},
    **{"v_head_dim": 64, "qk_head_dim": 96, "head_dim": 32, "n_shared_experts": 1, "first_k_dense_replace": 1},
    **{"bos_token_id": BOS_ID, "eos_token_id": EOS_ID, "pad_token_id": None, "tie_word_embeddings": False},
    "rope_parameters": {"rope_type": "default", "rope_theta": 5e4},
}
ARCHITECTURES = {
    **dict.fromkeys(("deepseek_v2", "deepseek_v3"), gguf.MODEL_ARCH.DEEPSEEK2),
    "minicpm3": gguf.MODEL_ARCH.MINICPM3,
    "kimi_linear": gguf.MODEL_ARCH.KIMI_LINEAR,
}
LONG = {
    **{"rope_type": "longrope", "rope_theta": 1e4, "factor": 1.0},
    **{"short_factor": [1 + n / 4 for n in range(16)], "long_factor": [1 + n / 4 for n in range(16)]},
}
OTHERS = {
    "minicpm3": {
        **{"head_dim": None, "tie_word_embeddings": True},
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},  # what llama.cpp takes for granted
    },
    "kimi_linear": {
        **{"num_hidden_layers": 4, "linear_head_dim": 64, "linear_num_heads": 4, "q_lora_rank": None},
        **{"layer_types": ["linear_attention", "full_attention"] * 2, "routed_scaling_factor": 1.5},
        "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
    },
}
"""Families that share little but the latents with the others."""
FAMILIES = {
    "deepseek_v2": {"q_lora_rank": None, "rope_parameters": YARN},  # as the Lite one
    "deepseek_v3": {"routed_scaling_factor": 1.5, "norm_topk_prob": True},
}


def made(family, seed=1, scale=0.3, **changes):
    """Return a random float32 model whose numbers that are not in blocks are those of a bfloat16 one."""
    chosen = _SIZES | (FAMILIES | OTHERS)[family] | changes
    if family in OTHERS:
        fields = type(tiny(family).config).__dataclass_fields__
        chosen = {key: value for key, value in chosen.items() if key in fields}
    model = tiny(family, seed, **chosen)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(scale if ".layers." in key and "mlp.gate.w" not in key else 1.0)
            if parameter.ndim == 1 or key.endswith((".mlp.gate.weight", "kv_b_proj.weight", *_RATES)):
                parameter.copy_(parameter.bfloat16())
        for key, buffer in model.named_buffers():
            if key.endswith("correction_bias"):  # zeros, if nothing is done
                buffer.copy_(torch.randn(buffer.shape, generator=torch.Generator().manual_seed(seed)) / 8)
    return model


def mixed(name):
    """As llama.cpp's Q4_K_M, and other formats beside it; what it keeps as it is is left."""
    part = name.split(".")[-2]
    if ".ssm_" in name:
        return None
    if part in ("ffn_gate_inp", "attn_k_b", "attn_v_b", "attn_kv_b", "attn_q_b", "exp_probs_b"):
        return {"attn_q_b": Kind.Q8_0}.get(part)
    if part in ("attn_output", "token_embd", "output"):
        return Kind.Q6_K
    return {"ffn_down": Kind.Q8_0, "attn_kv_a_mqa": Kind.Q5_0, "ffn_up_exps": Kind.Q5_0}.get(part, Kind.Q4_K)


def write_latent(path, model, formats=mixed, *, leave_out=(), whole=False, tokenizer=TOKENIZER, **metadata):
    """Write a model; return its path. The arguments are those of `write_gemma4`; `whole`: as earlier converters did."""
    config, architecture = model.config, ARCHITECTURES[model.config.model_type]
    whole = whole or config.model_type == "minicpm3"
    writer = gguf.GGUFWriter(str(path), gguf.MODEL_ARCH_NAMES[architecture])
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name == "lm_head.weight" and config.tie_word_embeddings:
                continue
            for theirs, own in _parts(config, names, name, tensor, whole):
                if theirs in leave_out:
                    continue
                form = formats(theirs) if own.ndim > 1 else None
                if form is None:
                    writer.add_tensor(theirs, own.contiguous().numpy())
                    continue
                raw = blocks(own.flatten(0, -2).contiguous().numpy(), form)
                writer.add_tensor(theirs, raw.reshape(*own.shape[:-1], -1), raw_dtype=form)
                own.copy_(torch.from_numpy(dequantize(raw, form)).view(own.shape))
    if (getattr(config, "rope_parameters", None) or {}).get("rope_type") == "longrope":
        for length in ("short", "long"):
            factors = np.array(config.rope_parameters[f"{length}_factor"], dtype=np.float32)
            writer.add_tensor(f"rope_factors_{length}.weight", factors)
    describe = {"minicpm3": _describe_minicpm, "kimi_linear": _describe_kimi}.get(config.model_type, _describe)
    describe(writer, config, whole)
    describe_tokenizer(writer, config, tokenizer, MERGES)
    change_metadata(writer, gguf.MODEL_ARCH_NAMES[architecture], metadata)
    write_out(writer)
    return path


def _parts(config, names, name, tensor, whole):
    """Yield what a file has of a tensor, as views of it."""
    stem, _, kind = name.rpartition(".")
    block = f"blk.{name.split('.')[2]}." if ".layers." in name else ""
    if kind == "A_log":
        yield f"{block}ssm_a", -tensor.exp()
    elif kind == "dt_bias":
        yield f"{block}ssm_dt.bias", tensor
    elif stem.endswith("conv1d"):
        for part, own in zip("qkv", tensor.chunk(3), strict=True):
            yield f"{block}ssm_conv1d_{part}.weight", own.squeeze(1)[None, :, None]
    elif kind == "e_score_correction_bias":
        yield f"{block}exp_probs_b.bias", tensor
    elif kind == "gate_up_proj":
        for part, own in zip(("gate", "up"), tensor.chunk(2, dim=1), strict=True):
            yield f"{block}ffn_{part}_exps.weight", own
    elif kind == "down_proj":
        yield f"{block}ffn_down_exps.weight", tensor
    elif stem.endswith("kv_b_proj") and not whole:
        heads = tensor.view(config.num_attention_heads, -1, config.kv_lora_rank)
        keys, values = heads.split([config.qk_nope_head_dim, config.v_head_dim], dim=1)
        yield f"{block}attn_k_b.weight", keys.transpose(1, 2)
        yield f"{block}attn_v_b.weight", values
    else:
        stem = stem.replace("forget_gate.", "")
        assert names.get_name(stem) is not None, name
        yield f"{names.get_name(stem)}.{kind}", tensor


def _describe(writer, config, whole):
    """Write what the converter writes."""
    describe_sizes(writer, config)
    if not whole:
        writer.kv_data[0].pop("deepseek2.attention.head_count_kv")
        writer.add_head_count_kv(1)
    rope, third = config.rope_parameters, config.model_type == "deepseek_v3"
    key = config.qk_nope_head_dim + config.qk_rope_head_dim
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_leading_dense_block_count(config.first_k_dense_replace)
    if config.q_lora_rank:
        writer.add_q_lora_rank(config.q_lora_rank)
    writer.add_kv_lora_rank(config.kv_lora_rank)
    writer.add_key_length(key if whole else config.kv_lora_rank + config.qk_rope_head_dim)
    writer.add_value_length(config.v_head_dim if whole else config.kv_lora_rank)
    if not whole:
        writer.add_key_length_mla(key)
        writer.add_value_length_mla(config.v_head_dim)
    writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    writer.add_expert_count(config.n_routed_experts)
    writer.add_expert_used_count(config.num_experts_per_tok)
    writer.add_expert_shared_count(config.n_shared_experts)
    writer.add_expert_weights_scale(config.routed_scaling_factor)
    writer.add_expert_weights_norm(config.norm_topk_prob)
    kinds = gguf.ExpertGatingFuncType
    writer.add_expert_gating_func(kinds.SIGMOID if third else kinds.SOFTMAX)
    if config.n_group > 1:
        writer.add_expert_group_count(config.n_group)
        writer.add_expert_group_used_count(config.topk_group)
    writer.add_rope_dimension_count(config.qk_rope_head_dim)
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        writer.add_rope_scaling_yarn_log_mul(0.1 * rope["mscale_all_dim"])


def _describe_minicpm(writer, config, whole):
    """Write what the converter writes: neither a base of angles nor factors."""
    describe_sizes(writer, config)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_q_lora_rank(config.q_lora_rank)
    writer.add_kv_lora_rank(config.kv_lora_rank)
    writer.add_key_length(config.qk_nope_head_dim + config.qk_rope_head_dim)
    writer.add_rope_dimension_count(config.qk_rope_head_dim)


def _describe_kimi(writer, config, whole):
    """Write what the converter writes."""
    describe_sizes(writer, config)
    writer.kv_data[0].pop("kimi-linear.attention.head_count_kv")
    writer.add_head_count_kv([int(kind == "full_attention") for kind in config.layer_types])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(1e4)
    writer.add_ssm_conv_kernel(config.linear_conv_kernel_dim)
    writer.add_kda_head_dim(config.linear_head_dim)
    writer.add_kv_lora_rank(config.kv_lora_rank)
    if config.q_lora_rank:
        writer.add_q_lora_rank(config.q_lora_rank)
    writer.add_rope_dimension_count(config.qk_rope_head_dim)
    writer.add_key_length(config.kv_lora_rank + config.qk_rope_head_dim)
    writer.add_key_length_mla(config.qk_nope_head_dim + config.qk_rope_head_dim)
    writer.add_value_length_mla(config.v_head_dim)
    writer.add_expert_count(config.num_local_experts)
    writer.add_expert_used_count(config.num_experts_per_tok)
    writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    writer.add_expert_shared_count(config.n_shared_experts)
    writer.add_leading_dense_block_count(config.mlp_layer_types.count("dense"))
    writer.add_expert_weights_scale(config.routed_scaling_factor)
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
