"""Quantised checkpoints of all families whose matrices lie in blocks, and of models of text and pictures."""

import pytest
import torch
import transformers
from transformers import CONFIG_MAPPING

from rapid_integrations.cache import Rows
from rapid_integrations.kernels.cpu import native_library
from rapid_integrations.models import loader
from rapid_integrations.models.gguf.stored import StoredLM
from rapid_integrations.models.hf import HuggingFaceLM
from rapid_integrations.models.packed.text_part import IN_BLOCKS
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
OF_OTHER_TESTS = {"gpt_oss"}  # tests/unit/models/packed/test_loading.py
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
    "Qwen3VL": {
        "text_config": {**TEXT, **SECTIONS},
        "vision_config": {**TOWER, "out_hidden_size": 128, "deepstack_visual_indexes": [0]},
        **TOKENS,
    },
}


def quantised(name, weight):
    routes = name.endswith(("gate.weight", "router.weight"))  # tools leave what chooses experts alone
    read_pictures = "vision" in name or "visual" in name
    return ".layers." in name and weight.ndim == 2 and weight.shape[1] % 32 == 0 and not (routes or read_pictures)


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
    expected = dense.lm.transformers_copy(torch.float32).state_dict()
    for name, weight in loaded.lm.transformers_copy(torch.float32).state_dict().items():
        own = expected[name if name in expected else name.replace("model.", "model.language_model.", 1)]
        if quantised(name, weight) or ".experts." in name:
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
        pytest.skip("its experts are one tensor each, in a format of their own")
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


def test_a_family_with_forms_of_its_own_is_dequantised(tmp_path):
    model = tiny("lfm2", 1, vocab_size=len(byte_tokenizer()))
    path = save(tmp_path, model, FORMATS[0])
    assert "dequantised" in check(path).weights and "repacked" not in check(path).weights
    assert type(loader.load(path, dtype="bfloat16").lm) is HuggingFaceLM
