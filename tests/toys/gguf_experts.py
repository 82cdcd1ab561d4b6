"""Tiny models with experts as GGUF files, under the tensor names that the gguf package has for their families."""

import gguf
import torch
from gguf.quants import dequantize

from rapid_integrations.cache import Rows
from tests.toys.gguf_file import blocks, describe_tokenizer, in_files_order, in_models_order
from tests.toys.models import BOS_ID, EOS_ID, byte_tokenizer

ARCHITECTURES = {
    "qwen3_moe": gguf.MODEL_ARCH.QWEN3MOE,
    "qwen2_moe": gguf.MODEL_ARCH.QWEN2MOE,
    "mixtral": gguf.MODEL_ARCH.LLAMA,
    "olmoe": gguf.MODEL_ARCH.OLMOE,
    "gpt_oss": gguf.MODEL_ARCH.GPT_OSS,
    "glm4_moe": gguf.MODEL_ARCH.GLM4_MOE,
    "granitemoe": gguf.MODEL_ARCH.GRANITE_MOE,
    "granitemoeshared": gguf.MODEL_ARCH.GRANITE_MOE,
    "ernie4_5_moe": gguf.MODEL_ARCH.ERNIE4_5_MOE,
    "minimax_m2": gguf.MODEL_ARCH.MINIMAXM2,
    "llama4_text": gguf.MODEL_ARCH.LLAMA4,
    "dots1": gguf.MODEL_ARCH.DOTS1,
    "exaone_moe": gguf.MODEL_ARCH.EXAONE_MOE,
    "hunyuan_v1_moe": gguf.MODEL_ARCH.HUNYUAN_MOE,
    "afmoe": gguf.MODEL_ARCH.AFMOE,
}
# llama.cpp's converter moves the rows of queries and keys of these families.
_INTERLEAVED = ("mixtral", "granitemoe", "granitemoeshared")
_TURNED = ("gpt_oss", "llama4_text")  # their matrices of experts are (N, K, O)
_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")

MERGES = (("t", "h"),)
TOKENIZER = byte_tokenizer(merges=MERGES)
IDS = torch.arange(3, 83)
ROUNDED = 0.05  # of bfloat16, and of inputs with eight bits; what is wrong is off by 1
SIZES = {
    **{"vocab_size": len(TOKENIZER), "hidden_size": 128, "intermediate_size": 64, "head_dim": 32, "sliding_window": 40},
    **{"moe_intermediate_size": 64, "shared_expert_intermediate_size": 96, "bos_token_id": BOS_ID},
    **{"shared_intermediate_size": 96, "eos_token_id": EOS_ID, "pad_token_id": None, "num_hidden_layers": 2},
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 8),
}


OF_A_FAMILY = {
    "llama4_text": {"num_hidden_layers": 4, "interleave_moe_layer_step": 2, "intermediate_size_mlp": 128},
    "dots1": {
        **{"n_shared_experts": 2, "first_k_dense_replace": 1, "routed_scaling_factor": 1.5, "norm_topk_prob": True},
        **{"n_group": 4, "topk_group": 2, "sliding_window": None},
    },
    "exaone_moe": {
        **{"num_hidden_layers": 3, "num_shared_experts": 2},
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "afmoe": {"num_hidden_layers": 5, "num_shared_experts": 2, "route_scale": 1.5, "mup_enabled": True},
}


@torch.inference_mode()
def logits(loaded, parts=(60, 2, 1, 17)):
    cache = loaded.lm.new_cache(len(IDS))
    return torch.cat([loaded.lm.forward([Rows(part, cache, len(part))])[0] for part in torch.split(IDS, list(parts))])


@torch.inference_mode()
def errors(loaded, model):
    """Return the relative error of each token. Rounding sends some tokens to other experts."""
    expected = model(IDS[None]).logits[0]
    return (logits(loaded) - expected).norm(dim=1) / expected.norm(dim=1)


def write_experts(path, model, tokenizer, merges, formats=lambda name: None, *, further=None, **metadata):
    """Write a model with experts; return its path.

    `formats`: for a tensor's name in GGUF the blocks in which it is written (`GGMLQuantizationType` or None); the model
    then gets the weights that they stand for. Other tensors are float32. `further`: tensors beside the model's, by
    name. `metadata`: keys without the architecture's prefix, "__" for dots, beside those that every file has; None
    removes one.
    """
    config, kind = model.config, model.config.model_type
    architecture = ARCHITECTURES[kind]
    writer = gguf.GGUFWriter(str(path), gguf.MODEL_ARCH_NAMES[architecture])
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        for part, own in _parts(kind, name, tensor):
            stem, _, end = part.rpartition(".")
            if end not in ("weight", "bias"):
                stem, end = part, "weight"
            theirs = f"{names.get_name(stem)}.{end}"
            assert not theirs.startswith("None"), part
            written = _rows(own, config, stem)
            form = formats(theirs) if own.ndim > 1 else None
            if form is None:
                writer.add_tensor(theirs, written.contiguous().float().numpy())
                continue
            flat = written.reshape(-1, written.shape[-1]).contiguous().numpy()
            raw = blocks(flat, form)
            writer.add_tensor(theirs, raw.reshape(*written.shape[:-1], -1), raw_dtype=form)
            own.copy_(_rows_back(torch.from_numpy(dequantize(raw, form)).view(written.shape), config, stem))
    for theirs, tensor in (further or {}).items():
        writer.add_tensor(theirs, tensor.numpy())
    _describe(writer, config, tokenizer, merges, metadata)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _parts(kind, name, tensor):
    """Yield what a file has of a tensor, each under a name that the gguf package knows, as a view of the tensor."""
    if name.endswith("mlp.expert_bias"):
        yield f"{name}.bias", tensor
        return
    if name.endswith("e_score_correction_bias"):
        yield f"{'.'.join(name.split('.')[:3])}.mlp.gate.e_score_correction.bias", tensor.squeeze()
        return
    if name.endswith("shared_mlp.input_linear.weight"):
        for part, own in zip(("gate_proj", "up_proj"), tensor.chunk(2), strict=True):
            yield name.replace("shared_mlp.input_linear", f"mlp.shared_expert.{part}"), own
        return
    if ".experts." not in name:
        moved = name.replace("shared_mlp.output_linear", "mlp.shared_expert.down_proj")
        yield moved.replace(".router.weight", ".router.layer.weight") if kind.startswith("granite") else name, tensor
        return
    module, _, part = name.rpartition(".")
    bias = part.endswith("_bias")
    end = "bias" if bias else "weight"
    module = module.replace("block_sparse_moe", "mlp")
    if part.startswith("down"):
        yield f"{module}.down_proj.{end}", tensor.transpose(1, 2) if kind in _TURNED and not bias else tensor
    elif kind == "gpt_oss":
        whole = tensor if bias else tensor.transpose(1, 2)
        yield f"{module}.gate_proj.{end}", whole[:, ::2]
        yield f"{module}.up_proj.{end}", whole[:, 1::2]
    else:
        whole = tensor.transpose(1, 2) if kind in _TURNED else tensor
        half = whole.shape[1] // 2
        yield f"{module}.gate_proj.{end}", whole[:, :half]
        yield f"{module}.up_proj.{end}", whole[:, half:]


def _heads(config, stem):
    if config.model_type not in _INTERLEAVED or not stem.endswith(("q_proj", "k_proj")):
        return None
    return config.num_attention_heads if stem.endswith("q_proj") else config.num_key_value_heads


def _rows(tensor, config, stem):
    if (heads := _heads(config, stem)) is None:
        return tensor
    return in_files_order(tensor, heads)


def _rows_back(tensor, config, stem):
    if (heads := _heads(config, stem)) is None:
        return tensor
    return in_models_order(tensor, heads)


def _describe(writer, config, tokenizer, merges, metadata):
    kind = config.model_type
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    counts = [getattr(config, name, None) for name in _COUNTS]
    writer.add_expert_count(next(each for each in counts if each))
    writer.add_expert_used_count(config.num_experts_per_tok)
    if kind == "llama4_text":
        writer.add_feed_forward_length(config.intermediate_size_mlp)
        writer.add_expert_feed_forward_length(config.intermediate_size)
        writer.add_interleave_moe_layer_step(config.interleave_moe_layer_step)
    elif kind != "gpt_oss":
        writer.add_feed_forward_length(config.intermediate_size)
    if kind in ("llama4_text", "afmoe"):
        writer.add_rope_dimension_count(head_dim)
    if kind in ("dots1", "exaone_moe", "afmoe"):
        inner, scale = config.moe_intermediate_size, "route_scale" if kind == "afmoe" else "routed_scaling_factor"
        shared = config.n_shared_experts if kind == "dots1" else config.num_shared_experts
        dense = config.num_dense_layers if kind == "afmoe" else config.first_k_dense_replace
        writer.add_expert_feed_forward_length(inner)
        writer.add_leading_dense_block_count(dense)
        writer.add_expert_shared_count(shared)
        writer.add_expert_weights_scale(getattr(config, scale))
        writer.add_expert_weights_norm(kind == "afmoe" or config.norm_topk_prob)
        writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
        if kind != "afmoe":
            writer.add_expert_group_count(config.n_group)
            writer.add_expert_group_used_count(config.topk_group)
        if kind != "dots1":
            writer.add_sliding_window(config.sliding_window)
        if kind == "exaone_moe":
            writer.add_sliding_window_pattern([each == "sliding_attention" for each in config.layer_types])
            writer.add_expert_shared_feed_forward_length(inner * shared)
            writer.add_nextn_predict_layers(0)
            writer.add_rope_scaling_type(gguf.RopeScalingType.NONE)
    if kind == "hunyuan_v1_moe":
        writer.add_expert_feed_forward_length(config.intermediate_size)
        writer.add_expert_shared_feed_forward_length(config.intermediate_size)
        writer.add_expert_shared_count(1)
        writer.add_rope_scaling_type(gguf.RopeScalingType.NONE)
        writer.add_rope_scaling_factor(1.0)
    if kind in ("qwen3_moe", "qwen2_moe", "glm4_moe"):
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    if kind == "qwen2_moe":
        writer.add_expert_shared_feed_forward_length(config.shared_expert_intermediate_size)
    if kind == "gpt_oss":
        writer.add_expert_feed_forward_length(config.intermediate_size)
        writer.add_sliding_window(config.sliding_window)
        if config.rope_parameters["rope_type"] == "yarn":
            writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
            writer.add_rope_scaling_factor(config.rope_parameters["factor"])
            writer.add_rope_scaling_orig_ctx_len(config.rope_parameters["original_max_position_embeddings"])
    if kind == "glm4_moe":
        writer.add_rope_dimension_count(int(head_dim * config.rope_parameters.get("partial_rotary_factor", 1.0)))
        writer.add_expert_shared_count(config.n_shared_experts)
        writer.add_leading_dense_block_count(config.first_k_dense_replace)
        writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
        writer.add_expert_weights_scale(config.routed_scaling_factor)
        writer.add_expert_weights_norm(config.norm_topk_prob)
    if kind == "minimax_m2":
        writer.add_rope_dimension_count(int(head_dim * config.rope_parameters.get("partial_rotary_factor", 1.0)))
        writer.add_expert_feed_forward_length(config.intermediate_size)
        writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    if kind == "ernie4_5_moe":
        writer.add_interleave_moe_layer_step(config.moe_layer_interval)
        writer.add_leading_dense_block_count(config.moe_layer_start_index)
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)
        writer.add_expert_shared_count(config.moe_num_shared_experts)
        writer.add_expert_shared_feed_forward_length(config.moe_intermediate_size * config.moe_num_shared_experts)
    if kind == "granitemoeshared":
        writer.add_expert_shared_feed_forward_length(config.shared_intermediate_size)
    if kind in ("granitemoe", "granitemoeshared"):
        writer.add_attention_scale(config.attention_multiplier)
        writer.add_embedding_scale(config.embedding_multiplier)
        writer.add_residual_scale(config.residual_multiplier)
        writer.add_logit_scale(config.logits_scaling)
    describe_tokenizer(writer, config, tokenizer, merges)
    for key, value in metadata.items():
        name = f"{gguf.MODEL_ARCH_NAMES[ARCHITECTURES[kind]]}.{key.replace('__', '.')}"
        writer.kv_data[0].pop(name, None)
        if value is not None:
            add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string, list: writer.add_array}
            add[type(value)](name, value)
