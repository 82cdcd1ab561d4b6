"""Models of text and pictures: their text part runs, exactly, from the files that people have."""

import pytest
import torch
import transformers

from rapid_integrations.cache import Rows
from rapid_integrations.errors import UnsupportedModelError
from rapid_integrations.models.loader import load
from tests.toys.every_family import EXPERTS_BESIDE
from tests.toys.models import BOS_ID, EOS_ID, byte_tokenizer, randomise, words

TOKENIZER = byte_tokenizer(extra_tokens=["<v>", "<img>", "<vid>", "</v>"])
TEXT = {
    "vocab_size": len(TOKENIZER),
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "bos_token_id": BOS_ID,
    "eos_token_id": EOS_ID,
    "pad_token_id": None,
}
PICTURES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
}
SECTIONS = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}}
QWEN_TOWER = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 4, "patch_size": 14}
QWEN_TOKENS = {"image_token_id": 261, "video_token_id": 262, "vision_start_token_id": 260, "vision_end_token_id": 263}
LATENT = {
    **{"num_key_value_heads": 4, "kv_lora_rank": 16, "q_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8},
    **{"v_head_dim": 8, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_group": 1},
    **{"topk_group": 1, "first_k_dense_replace": 1},
}
GEMMA_4 = {  # it reads the tokens of pictures as others, and so they are none of those that loading compares
    "text_config": {
        **{**TEXT, "pad_token_id": 0, "vocab_size": 1000, "vocab_size_per_layer_input": 1000},
        **{"hidden_size_per_layer_input": 8, "num_hidden_layers": 5, "num_kv_shared_layers": 2},
        **{"head_dim": 8, "global_head_dim": 16, "sliding_window": 16},
        "layer_types": [*["sliding_attention"] * 2, "full_attention", "sliding_attention", "full_attention"],
    },
    "vision_config": {
        **{"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4},
        **{"num_key_value_heads": 4, "head_dim": 8, "patch_size": 4, "position_embedding_size": 64},
    },
    "audio_config": None,
    **{"image_token_id": 999, "boi_token_id": 998, "eoi_token_id": 997},
}
MODELS = {
    "Mistral3": {
        "text_config": {"model_type": "mistral", **TEXT, "head_dim": 8, "sliding_window": 20},
        "vision_config": {"model_type": "pixtral", **PICTURES, "head_dim": 8},
        "image_token_index": 261,
    },
    "Mistral3, Mistral 4": {
        "text_config": {"model_type": "mistral4", **TEXT, **LATENT, "n_shared_experts": 1},
        "vision_config": {"model_type": "pixtral", **PICTURES, "head_dim": 8},
        "image_token_index": 261,
    },
    "Aria": {
        "text_config": {**TEXT, "head_dim": 8, "moe_num_experts": 4, "moe_topk": 2, "moe_num_shared_experts": 1},
        "vision_config": {"model_type": "idefics3_vision", **PICTURES},
        **{"image_token_index": 261, "projector_patch_to_query_dict": {"4": 4}},
    },
    "Llava": {
        "text_config": {"model_type": "llama", **TEXT, "head_dim": 8},
        "vision_config": {"model_type": "clip_vision_model", **PICTURES},
        "image_token_index": 261,
    },
    "Gemma3": {
        "text_config": {
            **TEXT,
            "head_dim": 8,
            "sliding_window": 16,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
        "vision_config": {"model_type": "siglip_vision_model", **PICTURES},
        "mm_tokens_per_image": 4,
        "boi_token_index": 260,
        "eoi_token_index": 262,
        "image_token_index": 261,
    },
    "Gemma4": GEMMA_4,
    "Gemma4, experts": GEMMA_4 | {"text_config": GEMMA_4["text_config"] | EXPERTS_BESIDE | {"attention_k_eq_v": True}},
    "Qwen2VL": {
        "text_config": {**TEXT, **SECTIONS},
        "vision_config": {"depth": 1, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "patch_size": 14},
        **QWEN_TOKENS,
    },
    "Qwen2_5_VL": {
        "text_config": {**TEXT, **SECTIONS},
        "vision_config": {**QWEN_TOWER, "out_hidden_size": 32, "fullatt_block_indexes": [0]},
        **QWEN_TOKENS,
    },
    "Qwen3VL": {
        "text_config": {**TEXT, **SECTIONS, "head_dim": 8},
        "vision_config": {**QWEN_TOWER, "out_hidden_size": 32, "deepstack_visual_indexes": [0]},
        **QWEN_TOKENS,
    },
    "InternVL": {
        "text_config": {"model_type": "qwen2", **TEXT},
        "vision_config": {**PICTURES, "image_size": [28, 28], "patch_size": [14, 14]},
        "image_token_id": 261,
    },
    "Kimi_K25": {
        "text_config": {"model_type": "deepseek_v3", **TEXT, **LATENT},
        "vision_config": {**PICTURES, "patch_size": 14, "text_hidden_size": 32, "merge_kernel_size": [2, 2]},
        "image_token_id": 200,  # its own forward reads another token in its place, and so this one is in no text
    },
}
NEW = 12


def save(folder, name, settings):
    name = name.partition(",")[0]
    config = getattr(transformers, f"{name}Config")(**settings)
    model = randomise(getattr(transformers, f"{name}ForConditionalGeneration")(config), 0).eval()
    model.save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    return model


@pytest.mark.parametrize("name", MODELS)
def test_the_text_part_is_transformers_own(tmp_path, name):
    model = save(tmp_path, name, MODELS[name])
    model.set_attn_implementation("eager")
    ids = torch.tensor(TOKENIZER(words(1, 40)).input_ids[:100])
    with torch.inference_mode():
        answer = model.generate(ids[None], max_new_tokens=NEW, do_sample=False, eos_token_id=-1, pad_token_id=0)
    expected = answer[0, len(ids) :].tolist()
    lm = load(tmp_path, dtype="float32").lm
    assert lm.context_window == 1024 and lm._fused is not None
    cache = lm.new_cache(200)
    lm.forward([Rows(ids[:70], cache, 0)])
    best = lm.forward([Rows(ids[70:], cache, 1)])[0][-1].argmax()
    got = []
    for _ in range(NEW):
        got.append(int(best))
        length = cache.length
        lm.forward([Rows(torch.tensor([int(best), 5, 6]), cache, 3)])[0]  # a draft that is rejected
        cache.rollback(length)
        best = lm.forward([Rows(best[None], cache, 1)])[0][-1].argmax()
    assert got == expected


def test_layers_that_only_look_at_pictures_are_refused(tmp_path):
    settings = {
        "text_config": {**TEXT, "cross_attention_layers": [1]},
        "vision_config": {
            **{"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_global_layers": 1},
            **{"attention_heads": 4, "image_size": 28, "patch_size": 14, "vision_output_dim": 64},
            **{"intermediate_layers_indices": [0], "supported_aspect_ratios": [[1, 1]], "max_num_tiles": 1},
        },
    }
    save(tmp_path, "Mllama", settings)
    with pytest.raises(UnsupportedModelError, match="1 of its 3 layers keep no keys"):
        load(tmp_path, dtype="float32")
