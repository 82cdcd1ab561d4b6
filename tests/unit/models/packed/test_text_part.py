"""Quantised checkpoints of all families whose matrices lie in blocks, and of models of text and pictures."""

import pytest
import torch
import transformers
from safetensors import safe_open
from transformers import CONFIG_MAPPING

from rapid_integrations.cache import Rows
from rapid_integrations.kernels.cpu import native_library
from rapid_integrations.models import loader
from rapid_integrations.models.gguf.stored import StoredLM
from rapid_integrations.models.hf import HuggingFaceLM
from rapid_integrations.models.packed.text_part import IN_BLOCKS, IN_PART
from rapid_integrations.models.run_check import check
from tests.toys import packed_checkpoints
from tests.toys.every_family import tiny
from tests.toys.models import BOS_ID, EOS_ID, byte_tokenizer, randomise

pytestmark = [
    pytest.mark.long,
    pytest.mark.usefixtures("home"),
    pytest.mark.skipif(native_library() is None, reason="no compiler, or RAPID_NATIVE=0"),
]
ROUNDED = {"granite": 0.2}  # of bfloat16, and of inputs with eight bits; what is wrong is off by 1. Others: 0.1
IDS = torch.arange(3, 63)
SIZES = {
    **{"vocab_size": len(byte_tokenizer()), "bos_token_id": BOS_ID, "eos_token_id": EOS_ID, "pad_token_id": None},
    **{"hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "intermediate_size": 64},
    **{"moe_intermediate_size": 64, "shared_expert_intermediate_size": 96},
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 8),
}
FORMATS = (packed_checkpoints.gptq(), packed_checkpoints.awq(), packed_checkpoints.compressed())
OF_OTHER_TESTS = {"gpt_oss", "llama4_text"}  # tests/unit/models/packed/test_loading.py, and below
QUICK = {"gemma3_text", "phi3", "cohere2", "glm4", "ernie4_5_moe"}
TEXT = {
    **{key: value for key, value in SIZES.items() if "expert" not in key and "moe" not in key},
    **{"num_hidden_layers": 2, "max_position_embeddings": 1024},
}
PICTURES = {
    **{"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4},
    **{"image_size": 28, "patch_size": 14},
}
TOWER = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 4, "patch_size": 14}
SECTIONS = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 4, 8]}}
TOKENS = {"image_token_id": 90, "video_token_id": 91, "vision_start_token_id": 92, "vision_end_token_id": 93}
OF_PICTURES = {
    "Gemma3": {
        "text_config": {**TEXT, "sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]},
        "vision_config": {"model_type": "siglip_vision_model", **PICTURES},
        **{"mm_tokens_per_image": 4, "boi_token_index": 90, "eoi_token_index": 92, "image_token_index": 91},
    },
    "Mistral3": {
        "text_config": {"model_type": "mistral", **TEXT, "sliding_window": 20},
        "vision_config": {"model_type": "pixtral", **PICTURES, "head_dim": 8},
        "image_token_index": 90,
    },
    "Mistral3, Ministral 3": {
        "text_config": {"model_type": "ministral3", **TEXT},
        "vision_config": {"model_type": "pixtral", **PICTURES, "head_dim": 8},
        "image_token_index": 90,
    },
    "Llava": {
        "text_config": {"model_type": "llama", **TEXT},
        "vision_config": {"model_type": "clip_vision_model", **PICTURES},
        "image_token_index": 90,
    },
    "Qwen2VL": {
        "text_config": {**TEXT, **SECTIONS},
        "vision_config": {"depth": 1, "embed_dim": 32, "hidden_size": 128, "num_heads": 4, "patch_size": 14},
        **TOKENS,
    },
    "Qwen2_5_VL": {
        "text_config": {**TEXT, **SECTIONS, "tie_word_embeddings": True},
        "vision_config": {**TOWER, "out_hidden_size": 128, "fullatt_block_indexes": [0]},
        **TOKENS,
    },
    "Qwen3_5": {
        "text_config": {
            **{**TEXT, "layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 2},
            **{"linear_num_value_heads": 4, "linear_key_head_dim": 32, "linear_value_head_dim": 32},
            "rope_parameters": {
                **{"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
                **{"mrope_section": [2, 3, 3], "mrope_interleaved": True},
            },
        },
        "vision_config": {**TOWER, "out_hidden_size": 128},
        **TOKENS,
    },
    "Qwen3VL": {
        "text_config": {**TEXT, **SECTIONS},
        "vision_config": {**TOWER, "out_hidden_size": 128, "deepstack_visual_indexes": [0]},
        **TOKENS,
    },
}


def quantised(name, weight):
    routes = name.endswith(("gate.weight", "router.weight"))  # tools leave what chooses experts alone
    read_pictures = "vision" in name or "visual" in name
    fits = weight.ndim == 2 and weight.shape[1] % 32 == 0 == weight.shape[0] % 8  # as tools want it
    return ".layers." in name and fits and not (routes or read_pictures)


def save(folder, model, made):
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(0.3)
    return packed_checkpoints.save_packed(folder / "model", model, *made, quantised, names="saved")


def assert_in_blocks(path, rounded=0.1):
    assert "repacked into blocks" in check(path).weights
    stages = []
    loaded = loader.load(path, dtype="bfloat16", on_progress=lambda stage, *_: stages.append(stage))
    assert type(loaded.lm) is StoredLM and not loaded.lm.kernels.startswith("none")
    assert any("without a second rounding" in stage for stage in stages)
    dense = loader.load(path, dtype="float32")
    assert type(dense.lm) is HuggingFaceLM
    with safe_open(path / "model.safetensors", "pt") as file:
        one_by_one = any(".experts.0." in name for name in file.keys())  # noqa: SIM118
    expected = dense.lm.transformers_copy(torch.float32).state_dict()
    for name, weight in loaded.lm.transformers_copy(torch.float32).state_dict().items():
        own = expected[name if name in expected else name.replace("model.", "model.language_model.", 1)]
        if quantised(name, weight) or (one_by_one and ".experts." in name):
            assert torch.equal(weight, own), name
    found, right = logits(loaded, (40, 2, 1, 17)), logits(dense, (60,))
    assert float(((found - right).norm(dim=1) / right.norm(dim=1)).median()) < rounded
    assert torch.equal(logits(loaded, (40, 20)), logits(loaded, (40, *[1] * 20)))


@torch.inference_mode()
def logits(loaded, parts):
    cache = loaded.lm.new_cache(len(IDS))
    return torch.cat([loaded.lm.forward([Rows(part, cache, len(part))])[0] for part in torch.split(IDS, list(parts))])


@pytest.mark.parametrize(
    "family", [pytest.param(each, marks=[] if each in QUICK else [pytest.mark.slow]) for each in sorted(IN_BLOCKS)]
)
def test_every_family(tmp_path, family):
    if family in OF_OTHER_TESTS:
        pytest.skip("its experts are one tensor for all of them")
    fields = CONFIG_MAPPING[family].__dataclass_fields__
    model = tiny(family, 1, **{key: value for key, value in SIZES.items() if key in fields})
    assert_in_blocks(save(tmp_path, model, FORMATS[len(family) % len(FORMATS)]), ROUNDED.get(family, 0.1))


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=[] if each == "Gemma3" else [pytest.mark.slow]) for each in OF_PICTURES]
)
def test_the_language_model_of_text_and_pictures(tmp_path, name):
    family = name.partition(",")[0]
    config = getattr(transformers, f"{family}Config")(**OF_PICTURES[name])
    model = randomise(getattr(transformers, f"{family}ForConditionalGeneration")(config), 1).eval()
    assert_in_blocks(save(tmp_path, model, FORMATS[len(name) % len(FORMATS)]))


# What families of which some matrices are never in blocks need, so that all widths are those of blocks.
LATENT = {
    **{"kv_lora_rank": 64, "q_lora_rank": 32, "qk_nope_head_dim": 32, "qk_rope_head_dim": 32, "v_head_dim": 32},
    **{"qk_head_dim": 64, "num_key_value_heads": 4},
}
MAMBA2 = {"mamba_n_heads": 8, "mamba_d_head": 32, "mamba_d_state": 32, "mamba_n_groups": 2}
OF_FAMILIES = {
    **dict.fromkeys(("axk1", "deepseek_v2", "deepseek_v3", "glm4_moe_lite", "minicpm3", "mistral4", "youtu"), LATENT),
    **dict.fromkeys(("bamba", "granitemoehybrid"), MAMBA2 | {"shared_intermediate_size": 64}),
    "falcon_h1": MAMBA2 | {"mamba_d_ssm": 256},
    "nemotron_h": {
        **{"mamba_num_heads": 8, "mamba_head_dim": 32, "ssm_state_size": 32, "n_groups": 2},
        "moe_shared_expert_intermediate_size": 64,
    },
    "mamba2": {"num_heads": 8, "head_dim": 32, "state_size": 32, "n_groups": 2},
    **dict.fromkeys(("mamba", "falcon_mamba"), {"state_size": 16, "time_step_rank": 32}),
    "jamba": {"mamba_d_state": 16, "mamba_dt_rank": 32},
    **dict.fromkeys(
        ("qwen3_5_moe_text", "qwen3_5_text", "qwen3_next"),
        {"linear_key_head_dim": 32, "linear_value_head_dim": 32},
    ),
}
QUICK_IN_PART = {"deepseek_v3", "falcon_h1", "qwen3_next"}


@pytest.mark.parametrize(
    "family",
    [pytest.param(each, marks=[] if each in QUICK_IN_PART else [pytest.mark.slow]) for each in sorted(IN_PART)],
)
def test_every_family_with_matrices_that_are_never_in_blocks(tmp_path, family):
    fields = CONFIG_MAPPING[family].__dataclass_fields__
    sizes = {key: value for key, value in SIZES.items() if key in fields} | OF_FAMILIES.get(family, {})
    model = tiny(family, 1, **sizes)
    path = save(tmp_path, model, FORMATS[len(family) % len(FORMATS)])
    assert "which become bfloat16 if they are quantised" in check(path).weights
    assert_in_blocks(path, 0.2)


def with_a_matrix_for_each_expert(model):
    """Return weights of Llama 4 as tools publish them that quantise experts: one by one, and by rows."""
    found = {}
    for name, weight in model.state_dict().items():
        module, _, part = name.rpartition(".")
        if not module.endswith(".experts"):
            found[name] = weight
            continue
        for index, own in enumerate(weight.transpose(1, 2)):
            parts = {"down": own} if part == "down_proj" else dict(zip(("gate", "up"), own.chunk(2), strict=True))
            found |= {f"{module}.{index}.{each}_proj.weight": rows for each, rows in parts.items()}
    return found


def test_experts_of_llama_4(tmp_path):
    fields = CONFIG_MAPPING["llama4_text"].__dataclass_fields__
    sizes = {key: value for key, value in SIZES.items() if key in fields}
    model = tiny("llama4_text", 1, **sizes, intermediate_size_mlp=64, moe_layers=[0, 2])
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(0.3)
    names = with_a_matrix_for_each_expert
    path = packed_checkpoints.save_packed(tmp_path / "model", model, *FORMATS[2], quantised, names=names)
    loaded = loader.load(path, dtype="bfloat16")
    assert type(loaded.lm) is StoredLM
    copy, own = loaded.lm.transformers_copy(torch.float32), model.state_dict()
    for name, weight in copy.state_dict().items():  # each expert's rows and columns are where they were
        assert (weight - own[name]).norm() <= 0.15 * own[name].norm(), name
    with torch.inference_mode():
        right = copy(IDS[None]).logits[0]
    found = logits(loaded, (40, 2, 1, 17))
    assert float(((found - right).norm(dim=1) / right.norm(dim=1)).median()) < 0.2
    assert torch.equal(logits(loaded, (40, 20)), logits(loaded, (40, *[1] * 20)))


def test_modules_that_gptq_leaves_out_are_numbers(tmp_path):
    """As Qwen3.5's published files have their attention and delta nets."""
    make, settings = FORMATS[0]
    left_out = settings | {"dynamic": {"-:.*attn.*": {}}}
    fields = CONFIG_MAPPING["qwen3_5_text"].__dataclass_fields__
    sizes = {key: value for key, value in SIZES.items() if key in fields} | OF_FAMILIES["qwen3_5_text"]
    model = tiny("qwen3_5_text", 1, **sizes)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(0.3)

    def only(name, weight):
        return quantised(name, weight) and "attn" not in name

    path = packed_checkpoints.save_packed(tmp_path / "model", model, make, left_out, only, names="saved")
    loaded = loader.load(path, dtype="bfloat16")
    assert type(loaded.lm) is StoredLM
    held = loaded.lm.transformers_copy(torch.float32).state_dict()
    name = "model.layers.0.linear_attn.in_proj_qkv.weight"
    assert torch.equal(held[name], model.state_dict()[name].bfloat16().float())


def test_a_family_with_forms_of_its_own_is_dequantised(tmp_path):
    model = tiny("recurrent_gemma", 1, vocab_size=len(byte_tokenizer()))
    path = save(tmp_path, model, FORMATS[0])
    assert "dequantised" in check(path).weights and "repacked" not in check(path).weights
    assert type(loader.load(path, dtype="bfloat16").lm) is HuggingFaceLM
