"""Families that are described by data: greedy output equals transformers' `generate`, alone, in company and shared.

Prompts are longer than every window and chunk. A few of the families in the normal run, all of them with `-m slow`.
"""

import pytest
import torch

from rapid_integrations.cache import Rows
from rapid_integrations.cache.prefix_cache import PrefixCache
from rapid_integrations.decoding.passes import run_alone
from rapid_integrations.decoding.prefixes import Prefixes
from rapid_integrations.models.families import FAMILIES
from rapid_integrations.models.hf import HuggingFaceLM
from rapid_integrations.models.loader import wrap
from tests.toys.every_family import EXPERTS_BESIDE, NEW, TEXT, decoded, generated, ids, tiny
from tests.toys.models import byte_tokenizer

USUAL = (
    "apertus",
    "cohere2",
    "deepseek_v2",
    "deepseek_v3",
    "deepseek_v32",
    "exaone4",
    "falcon_h1",
    "gemma2",
    "gemma3_text",
    "gemma3n_text",
    "glm4",
    "glm4_moe",
    "glm_moe_dsa",
    "gpt2",
    "gpt_oss",
    "granite",
    "granitemoehybrid",
    "jamba",
    "kimi_linear",
    "laguna",
    "lfm2",
    "lfm3",
    "mamba",
    "minimax",
    "nemotron_h",
    "olmo3",
    "olmo_hybrid",
    "phi3",
    "qwen3_5_text",
    "qwen3_next",
    "recurrent_gemma",
    "zamba2",
)
OTHERS = (
    *("axk1", "bamba", "glm4_moe_lite", "minicpm3", "sarvam_mla", "youtu", "gpt_neox", "granitemoe"),
    *("arcee", "cohere", "ernie4_5", "gemma", "glm", "hunyuan_v1_dense", "llama", "ministral", "mistral"),
    *("mixtral", "olmo", "olmo2", "olmoe", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "seed_oss", "smollm3"),
    *("stablelm", "starcoder2", "ernie4_5_moe", "exaone_moe", "granitemoeshared", "helium", "minimax_m2", "phi"),
    *("gemma4_text", "lfm2_moe", "llama4_text", "nanochat", "opt", "phimoe", "qwen3_5_moe_text", "vaultgemma"),
    *("afmoe", "dots1", "falcon_mamba", "hunyuan_v1_moe", "jais2", "ministral3", "nemotron"),
    *("cwm", "flex_olmo", "flint", "gemma4_unified_text", "granite_swa", "granitemoe_swa", "hy_v3", "hyperclovax"),
    *("mellum", "solar_open"),
    *("apertus1p5_text", "aria_text", "cohere2_moe", "falcon", "gpt_bigcode", "kolibri1", "lara_mini", "mamba2"),
    *("mimo_v2_flash", "mistral4"),
)
INDEXED = ("deepseek_v32", "glm_moe_dsa")  # transformers' own forward does not run on this package's cache
GROWING = {"llama_4_scaling_beta": 0.5, "original_max_position_embeddings": 16}
YARN = {
    **{"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64},
    **{"mscale": 0.7, "mscale_all_dim": 1.0},
}
# Settings that the small defaults say nothing of.
SETTINGS = {
    "afmoe": {"num_hidden_layers": 5, "mup_enabled": True, "route_scale": 1.5},
    "dots1": {"n_group": 2, "topk_group": 1, "routed_scaling_factor": 1.5, "max_window_layers": 1},
    "ministral3": {
        "rope_parameters": {
            **{"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16},
            **{"mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.5},
        },
    },
    "cohere": {"use_qk_norm": True},
    "cohere2_moe": {"first_k_dense_replace": 1, "prefix_dense_intermediate_size": 64, "layer_types": None},
    "laguna": {"moe_routed_scaling_factor": 1.5, "moe_router_logit_softcapping": 0.7},
    "minimax": {
        **{"full_attn_alpha_factor": 1.5, "full_attn_beta_factor": 0.7, "linear_attn_alpha_factor": 0.8},
        **{"linear_attn_beta_factor": 1.3, "mlp_alpha_factor": 2.0, "mlp_beta_factor": 0.6},
    },
    "mistral4": {
        **{"n_group": 2, "topk_group": 1, "routed_scaling_factor": 1.5},
        "rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "mscale_all_dim": 1.0} | GROWING,
    },
    "deepseek_v2": {
        **{"num_experts": 8, "topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2},
        **{"routed_scaling_factor": 2.0, "q_lora_rank": None},
    },
    **dict.fromkeys(("deepseek_v3", "deepseek_v32"), {"n_group": 2, "topk_group": 1, "rope_parameters": YARN}),
    "gemma3n_text": {"activation_sparsity_pattern": [0.9, 0.0, 0.5, 0.0, 0.95], "final_logit_softcapping": 5.0},
    "glm4_moe": {"n_group": 2, "topk_group": 1, "use_qk_norm": True},
    "minicpm3": {"dim_model_base": 16, "scale_emb": 3},
    "youtu": {"rope_interleave": False},
    "granite": {"attention_multiplier": 0.2, "residual_multiplier": 0.7, "embedding_multiplier": 3.0},
    "granitemoe": {"attention_multiplier": 0.2, "residual_multiplier": 0.7, "logits_scaling": 2.0},
    "llama4_text": {
        **{"no_rope_layers": [1, 0, 1], "attention_chunk_size": 32, "floor_scale": 8, "attn_scale": 0.5},
        **{"intermediate_size_mlp": 64, "moe_layers": [0, 2]},
    },
    "phimoe": {"router_jitter_noise": 0.4},  # so that some experts are near, and some far
    "qwen3_moe": {"norm_topk_prob": True, "decoder_sparse_step": 2},
    "stablelm": {"use_parallel_residual": True},
}
FAMILIES_TESTED = [*USUAL, *(pytest.param(family, marks=pytest.mark.slow) for family in OTHERS)]


def together(lm):
    """Greedy tokens of two texts behind a beginning that they share, in joint passes with drafts that are rejected."""
    document = lm.new_cache(TEXT)
    lm.forward([Rows(ids()[:70], document, 0)])
    readers = [(document.fork(70, 2 * TEXT), ids()[70:]), (document.fork(65, 2 * TEXT), ids()[:35])]
    best = [logits[-1].argmax() for logits in lm.forward([Rows(text, cache, 1) for cache, text in readers])]
    answers = [[], []]
    for _ in range(NEW):
        lengths = [cache.length for cache, _ in readers]
        for answer, token in zip(answers, best, strict=True):
            answer.append(int(token))
        drafts = [torch.tensor([int(token), 5, 6][: 2 + index]) for index, token in enumerate(best)]
        lm.forward([Rows(draft, cache, 1) for draft, (cache, _) in zip(drafts, readers, strict=True)])
        for (cache, _), length in zip(readers, lengths, strict=True):
            cache.rollback(length)
        rows = [Rows(token[None], cache, 1) for token, (cache, _) in zip(best, readers, strict=True)]
        best = [logits[-1].argmax() for logits in lm.forward(rows)]
    return answers


@torch.inference_mode()
def continued(model, text):
    model.set_attn_implementation("eager")
    answer = model.generate(text[None], max_new_tokens=NEW, do_sample=False, eos_token_id=-1, pad_token_id=0)
    return answer[0, len(text) :].tolist()


@pytest.mark.parametrize("family", FAMILIES_TESTED)
def test_greedy_output_is_what_transformers_generates(family):
    settings = SETTINGS.get(family, {})
    reference = tiny(family, **settings)
    lm = wrap(tiny(family, **settings), byte_tokenizer(), take_over=True).lm
    assert lm._fused is not None and lm.passes_together
    assert decoded(lm) == generated(reference)
    second = continued(reference, torch.cat([ids()[:65], ids()[:35]]))
    assert together(lm) == [generated(reference), second]


def scaled(model):
    """Return a model of Gemma 4 whose layers have factors, as published ones do and new ones do not."""
    for index, layer in enumerate(model.model.layers):
        layer.layer_scalar.fill_(0.7 + 0.1 * index)
    return model


LARGE = {
    **{"num_kv_shared_layers": 0, "hidden_size_per_layer_input": 0, "attention_k_eq_v": True},
    **{"num_global_key_value_heads": 1, "final_logit_softcapping": 5.0},
}


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"use_double_wide_mlp": True}, marks=pytest.mark.slow),
        pytest.param(LARGE, marks=pytest.mark.slow),
        LARGE | EXPERTS_BESIDE,
        EXPERTS_BESIDE,
        pytest.param(
            EXPERTS_BESIDE | {"num_kv_shared_layers": 2, "hidden_size_per_layer_input": 8}, marks=pytest.mark.slow
        ),
    ],
)
def test_gemma_4_of_every_kind_is_what_transformers_generates(settings):
    """The small published models share keys and have inputs of every layer; the large ones do neither.

    One of the large ones has experts beside the MLP of every layer. Their factors and the router's are no ones here.
    """
    reference = scaled(tiny("gemma4_text", **settings))
    lm = wrap(scaled(tiny("gemma4_text", **settings)), byte_tokenizer(), take_over=True).lm
    assert lm._fused is not None and not lm.has_parts
    assert decoded(lm) == generated(reference)
    second = continued(reference, torch.cat([ids()[:65], ids()[:35]]))
    assert together(lm) == [generated(reference), second]


@pytest.mark.in_turn(2)
@pytest.mark.parametrize(
    ("family", "settings"),
    [
        *((each, {}) for each in ("deepseek_v3", "gemma3_text", "gemma3n_text", "gemma4_text", "glm4_moe", "gpt_oss")),
        *(("gemma4_text", EXPERTS_BESIDE), ("llama4_text", {}), ("nemotron_h", {}), ("phi3", {}), ("qwen3_next", {})),
        *((each, {}) for each in INDEXED),
        *(("falcon_h1", {"mamba_n_heads": 16, "mamba_d_ssm": 128}), ("kimi_linear", {}), ("olmo_hybrid", {})),
        *(("gpt2", {}), ("opt", {"word_embed_proj_dim": 64}), ("phimoe", {}), ("zamba2", {"attention_head_dim": 32})),
        *(("jamba", {}), ("mamba", {}), ("falcon_mamba", {}), ("recurrent_gemma", {})),
        *(("apertus", {}), ("laguna", {}), ("lfm3", {}), ("minimax", {}), ("mistral4", {})),
    ],
)
@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_quantised_models_are_those_with_the_quantised_weights(family, settings, quantization):
    settings = {"hidden_size": 64, **settings}
    lm = HuggingFaceLM(tiny(family, **settings), take_over=True, quantization=quantization)
    held = HuggingFaceLM(lm.transformers_copy(torch.float32), take_over=family in INDEXED)
    found = lm.forward([Rows(ids(), lm.new_cache(TEXT), TEXT)])[0]
    expected = held.forward([Rows(ids(), held.new_cache(TEXT), TEXT)])[0]
    assert (found - expected).norm() / expected.norm() < 1e-3
    plain = HuggingFaceLM(tiny(family, **settings), take_over=family in INDEXED)
    assert (plain.forward([Rows(ids(), plain.new_cache(TEXT), TEXT)])[0] - found).norm() / found.norm() > 1e-3


def test_every_described_family_is_tested():
    classes = {type(tiny(family)).__name__ for family in (*USUAL, *OTHERS)}
    assert classes == set(FAMILIES) - {"Skeleton"}


ORIGINAL = 150  # tokens; the text has TEXT = 100
LONGROPE = {
    "original_max_position_embeddings": ORIGINAL,
    "rope_parameters": {
        **{"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": ORIGINAL},
        **{"short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [2.0, 3.0, 5.0, 9.0], "factor": 4.0},
    },
}


@pytest.mark.parametrize("family", ["phi3", "llama"])
def test_longrope_follows_the_capacity_of_a_request(family):
    """A text has one set of angles from its first token on, and so its keys never have to change."""
    reference = tiny(family, **LONGROPE)
    lm = wrap(tiny(family, **LONGROPE), byte_tokenizer(), take_over=True).lm
    long_text = torch.cat([ids(), ids()])
    for text in (ids(), long_text):
        cache = lm.new_cache(len(text) + NEW)
        assert cache.variant == int(len(text) + NEW > ORIGINAL)
        lm.forward([Rows(text[:70], cache, 0)])
        best, answer = lm.forward([Rows(text[70:], cache, 1)])[0][-1].argmax(), []
        for _ in range(NEW):
            answer.append(int(best))
            best = lm.forward([Rows(best[None], cache, 1)])[0][-1].argmax()
        assert answer == continued(reference, text)
        assert cache.fork(70, 500).variant == cache.variant
    short = lm.forward([Rows(ids(), lm.new_cache(TEXT), 1)])[0]
    assert not torch.allclose(short, lm.forward([Rows(ids(), lm.new_cache(ORIGINAL + 1), 1)])[0], atol=0.01)


def test_a_short_request_does_not_take_the_rows_of_a_long_one():
    target = wrap(tiny("phi3", **LONGROPE), byte_tokenizer(), take_over=True)
    prefixes = Prefixes(PrefixCache(10**9))
    prompt = ids().tolist()
    for capacity, reused in ((120, 0), (400, 0), (400, TEXT - 2), (110, TEXT - 2)):
        with prefixes.request() as readers:
            reader = readers.open(target.lm, "target", prompt, capacity)
            assert reader.reused >= reused and bool(reader.reused) == bool(reused)
            run_alone(reader.prefill())
