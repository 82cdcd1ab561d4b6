"""Every causal language model of the installed transformers, made small from its configuration's class."""

import functools

import torch
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from rapid_integrations.cache import Rows
from rapid_integrations.models.model_class import class_for
from tests.toys.models import BOS_ID, EOS_ID, VOCAB_SIZE, byte_tokenizer, randomise, words

NEW = 12
TEXT = 100  # tokens; windows are 20
LAYERS = 3
# What the configurations call their sizes, small; each class takes those that it knows.
SIZES = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "n_embd": 32,
    "d_model": 32,
    "embedding_size": 32,
    "word_embed_proj_dim": 32,
    "intermediate_size": 48,
    "ffn_dim": 48,
    "n_inner": 48,
    "decoder_ffn_dim": 48,
    "encoder_ffn_dim": 48,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "shared_intermediate_size": 16,
    "ffn_hidden_size": 48,
    "expert_ffn_hidden_size": 16,
    "num_hidden_layers": LAYERS,
    "n_layer": LAYERS,
    "n_layers": LAYERS,
    "num_layers": LAYERS,
    "decoder_layers": LAYERS,
    "encoder_layers": LAYERS,
    "num_attention_heads": 4,
    "n_head": 4,
    "n_heads": 4,
    "num_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_kv_heads": 2,
    "head_dim": 8,
    "kv_channels": 8,
    "rotary_dim": 8,
    "max_position_embeddings": 1024,
    "n_positions": 1024,
    "n_ctx": 1024,
    "max_seq_len": 1024,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "num_experts_per_token": 2,
    "moe_k": 2,
    "moe_topk": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "num_dense_layers": 1,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "qk_head_dim": 16,
    "v_head_dim": 8,
    "state_size": 4,
    "attention_hidden_size": 32,
    "mamba_d_state": 4,
    "mamba_d_head": 8,
    "mamba_n_heads": 8,
    "mamba_num_heads": 8,
    "mamba_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "sliding_window": 20,
    "attention_dropout": 0.0,
    "attn_pdrop": 0.0,
    "resid_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "hidden_dropout": 0.0,
    "dropout": 0.0,
    "bos_token_id": BOS_ID,
    "eos_token_id": EOS_ID,
    "pad_token_id": None,
    "use_cache": True,
    "is_decoder": True,
}
SHARING = ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention", "full_attention"]
LINEAR = ["linear_attention", "full_attention", "linear_attention"]
# Of Gemma 4's layers: experts beside an MLP, as its large sparse model has them, without inputs of every layer.
EXPERTS_BESIDE = {
    **{"enable_moe_block": True, "num_experts": 8, "top_k_experts": 3, "moe_intermediate_size": 16},
    **{"num_kv_shared_layers": 0, "hidden_size_per_layer_input": 0},
}
# Of indexed attention: rows of the text choose fewer keys than there are.
INDEXED = {"num_key_value_heads": 4, "index_topk": 24, "index_n_heads": 8, "index_head_dim": 16}
# What single families need besides.
OF_A_FAMILY = {
    **dict.fromkeys(  # latent attention: a key for every head
        ("axk1", "deepseek_v2", "deepseek_v3", "glm4_moe_lite", "longcat_flash", "sarvam_mla", "youtu", "minicpm3"),
        {"num_key_value_heads": 4},
    ),
    "deepseek_v32": INDEXED,
    "glm_moe_dsa": INDEXED | {"num_hidden_layers": 4, "indexer_types": ["full", "shared", "full", "shared"]},
    "dots1": {"n_shared_experts": 1},
    "gptj": {"n_positions": 1024},
    **dict.fromkeys(
        ("camembert", "data2vec-text", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"),
        {"pad_token_id": 1},
    ),
    "falcon": {"alibi": False},
    "qwen2": {"use_sliding_window": True, "max_window_layers": 1},
    "qwen2_moe": {"use_sliding_window": True, "max_window_layers": 1},
    "qwen3": {"use_sliding_window": True, "max_window_layers": 1},
    **dict.fromkeys(
        ("granitemoehybrid", "olmo_hybrid", "qwen3_5_text", "qwen3_5_moe_text", "qwen3_next"),
        {"layer_types": LINEAR},
    ),
    "bamba": {"attn_layer_indices": [1]},
    **dict.fromkeys(
        ("bailing_hybrid", "kimi_linear"), {"layer_types": LINEAR, "num_key_value_heads": 4, "linear_num_heads": 4}
    ),
    "falcon_h1": {
        **{"mamba_d_ssm": 64, "mlp_multipliers": [0.7, 0.6], "ssm_multipliers": [0.8, 1.2, 0.7, 1.3, 0.9]},
        **{"embedding_multiplier": 1.5, "lm_head_multiplier": 0.5, "key_multiplier": 0.7, "ssm_in_multiplier": 0.9},
        **{"attention_in_multiplier": 0.8, "attention_out_multiplier": 0.6, "ssm_out_multiplier": 0.7},
    },
    "nemotron_h": {
        "layers_block_type": ["linear_attention", "mlp", "linear_attention", "full_attention", "moe"],
        **{"ssm_state_size": 8, "n_groups": 2, "moe_shared_expert_intermediate_size": 32},
        "time_step_min": 1e-6,  # transformers' single tokens know no least step, and its chunks do
    },
    "gemma3n_text": {
        **{"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": VOCAB_SIZE, "num_hidden_layers": 5},
        **{"layer_types": SHARING, "num_kv_shared_layers": 2, "activation_sparsity_pattern": [0.9, 0.0, 0.0, 0.0, 0.0]},
    },
    "gemma4_text": {
        **{"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": VOCAB_SIZE, "num_hidden_layers": 5},
        **{"layer_types": SHARING, "num_kv_shared_layers": 2, "global_head_dim": 16},
    },
    "kolibri1": {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    "lara_mini": {"layer_types": ["linear_attention", "full_attention", "sliding_attention"]},
    "laguna": {
        "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
        "num_attention_heads_per_layer": [4, 8, 4],
    },
    "cohere2_moe": {
        "num_shared_experts": 2,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "mistral4": {"num_key_value_heads": 4, "n_shared_experts": 1},
    "mimo_v2_flash": {
        **{"layer_types": ["full_attention", "sliding_attention", "sliding_attention"], "head_dim": 16},
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 1e5, "partial_rotary_factor": 0.5},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.25},
        },
    },
    "jamba": {"attn_layer_period": 3, "attn_layer_offset": 1, "use_mamba_kernels": False},
    "minimax": {"layer_types": ["full_attention", "linear_attention", "full_attention"], "block_size": 16},
    "mamba2": {"num_heads": 8, "n_groups": 2},
    "zamba": {
        **{"layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"], "num_hidden_layers": 4},
        **{"attention_hidden_size": 64, "attention_head_dim": 16},
    },
    "zamba2": {
        # two shared blocks: the last layer has the first one again
        **{"layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid", "hybrid"]},
        **{"num_hidden_layers": 5, "num_mem_blocks": 2, "use_shared_attention_adapter": True, "adapter_rank": 8},
        **{"use_mem_rope": True, "num_key_value_heads": 4, "attention_head_dim": 16, "mamba_ngroups": 2},
        "time_step_min": 1e-6,  # as of Nemotron-H
    },
    "zaya": {"num_experts_per_tok": 1},
    **dict.fromkeys(("lfm2", "lfm2_moe"), {"layer_types": ["conv", "full_attention", "conv"]}),
    "lfm3": {"layer_types": ["conv", "full_attention", "conv", "sliding_attention"], "num_hidden_layers": 4},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "num_layers": 4, "window_size": 20},
    "dbrx": {"attn_config": {"kv_n_heads": 2}, "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 4}},
    "opt": {"pad_token_id": 1},
    "xglm": {"pad_token_id": 1},
    "biogpt": {"pad_token_id": 1},
    "phi": {"partial_rotary_factor": 0.5},
    "gpt_neox": {"rotary_pct": 0.5},
    "persimmon": {"partial_rotary_factor": 0.5},
}


# Factors on matrices that would make much of what is rounded off, as parts without a residual stand behind each other.
QUIETER = {"zamba2": 0.45}


def families():
    """Return the names of all families that transformers has a causal language model of."""
    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def tiny(family, seed=0, **changes):
    """Return a small random model of a family, in evaluation mode.

    Raises whatever the classes do where they cannot be made small in this way.
    """
    config_class = CONFIG_MAPPING[family]
    fields = set(config_class.__dataclass_fields__) | set(config_class.attribute_map)
    chosen = {name: value for name, value in SIZES.items() if name in fields}
    chosen |= {name: value for name, value in OF_A_FAMILY.get(family, {}).items()}
    for name, target in config_class.attribute_map.items():
        if target in chosen:
            chosen.pop(name, None)
    config = config_class(**(chosen | changes))
    model_class = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None) or class_for(family, config)[1]
    if isinstance(model_class, tuple):
        model_class = model_class[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(config)
    if sum(parameter.numel() for parameter in model.parameters()) > 30_000_000:
        raise ValueError(f"{family} is not small: {transformers.__version__} has other names for its sizes")
    randomise(model, seed)
    for parameter in model.parameters() if family in QUIETER else ():
        if parameter.ndim > 1:
            parameter.data.mul_(QUIETER[family])
    return model.eval()


@functools.cache
def ids():
    return torch.tensor(byte_tokenizer()(words(1, 40)).input_ids[:TEXT])


@torch.inference_mode()
def generated(model):
    model.set_attn_implementation("eager")
    answer = model.generate(ids()[None], max_new_tokens=NEW, do_sample=False, eos_token_id=-1, pad_token_id=0)
    return answer[0, TEXT:].tolist()


def decoded(lm):
    """Greedy tokens, with a draft that is rejected behind each of them, and the text read in two chunks."""
    cache = lm.new_cache(2 * TEXT)
    lm.forward([Rows(ids()[:70], cache, 0)])
    best = lm.forward([Rows(ids()[70:], cache, 1)])[0][-1].argmax()
    answer = []
    for _ in range(NEW):
        answer.append(int(best))
        length = cache.length
        lm.forward([Rows(torch.tensor([int(best), 5, 6]), cache, 3)])
        cache.rollback(length)
        best = lm.forward([Rows(best[None], cache, 1)])[0][-1].argmax()
    return answer
