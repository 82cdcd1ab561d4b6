"""Every family that is described by data, on the kernels: float32 logits, and the same bits alone and in company."""

import pytest
import torch

from rapid_integrations.cache import Rows
from rapid_integrations.kernels import cpu as native
from rapid_integrations.models.hf import HuggingFaceLM
from tests.toys.decoders import error, ids, read
from tests.toys.every_family import EXPERTS_BESIDE, tiny
from tests.toys.freed_rows import rows_freed_early
from tests.toys.shared_beginnings import check

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(native.native_library() is None, reason="no compiler, or RAPID_NATIVE=0"),
]

SIZES = {
    **{"hidden_size": 128, "intermediate_size": 160, "head_dim": 32, "sliding_window": 70},
    **{"moe_intermediate_size": 64, "shared_expert_intermediate_size": 96, "shared_intermediate_size": 96},
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 8),
}
LATENT = {
    **{"kv_lora_rank": 64, "qk_nope_head_dim": 32, "qk_rope_head_dim": 32, "qk_head_dim": 64, "v_head_dim": 32},
    **{"q_lora_rank": 96, "topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2},
}
INDEXED = {"index_topk": 130, "index_n_heads": 6, "index_head_dim": 64}
# What a family has in place of `head_dim`, and settings of which the small defaults say nothing.
OTHERS = {
    "cohere": {"use_qk_norm": True},
    "glm": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
    **dict.fromkeys(("axk1", "deepseek_v2", "deepseek_v3", "glm4_moe_lite", "minicpm3", "sarvam_mla", "youtu"), LATENT),
    **dict.fromkeys(("deepseek_v32", "glm_moe_dsa"), LATENT | INDEXED),
    "glm4_moe": {"n_group": 4, "topk_group": 2, "use_qk_norm": True},
    "gpt2": {"n_embd": 128, "n_inner": 160, "n_head": 4, "n_positions": 4096},
    "opt": {"word_embed_proj_dim": 128, "ffn_dim": 160, "max_position_embeddings": 4096},
    "phimoe": {"intermediate_size": 64, "router_jitter_noise": 0.2},
    **dict.fromkeys(("granite", "granitemoe"), {"attention_multiplier": 0.1}),
    "granitemoeshared": {"attention_multiplier": 0.1, "residual_multiplier": 0.5},
    "gemma3n_text": {"hidden_size_per_layer_input": 32, "activation_sparsity_pattern": [0.9, 0.0, 0.5, 0.0, 0.95]},
    "gemma4_text": {"global_head_dim": 64, "hidden_size_per_layer_input": 32, "use_double_wide_mlp": True},
    "gemma4_text, large": {
        **{"num_kv_shared_layers": 0, "hidden_size_per_layer_input": 0, "attention_k_eq_v": True},
        **{"global_head_dim": 64, "num_global_key_value_heads": 1, "final_logit_softcapping": 5.0},
    },
    "gemma4_text, experts": {
        **EXPERTS_BESIDE,
        **{"moe_intermediate_size": 64, "global_head_dim": 64, "attention_k_eq_v": True},
        **{"num_global_key_value_heads": 1, "final_logit_softcapping": 5.0},
    },
    "gemma4_text, experts and inputs": {  # no published model has both
        **EXPERTS_BESIDE,
        **{"moe_intermediate_size": 96, "global_head_dim": 64},
        **{"num_kv_shared_layers": 2, "hidden_size_per_layer_input": 32},
    },
    "llama4_text": {
        **{"no_rope_layers": [1, 0, 1], "attention_chunk_size": 96, "floor_scale": 8, "attn_scale": 0.5},
        **{"intermediate_size_mlp": 128, "moe_layers": [0, 2], "intermediate_size": 96},
    },
    "phi3": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.75}},
    "stablelm": {"use_parallel_residual": True},
    "aria_text": {"intermediate_size": 64},
    "cohere2_moe": {"intermediate_size": 64, "first_k_dense_replace": 1, "prefix_dense_intermediate_size": 96},
    "kolibri1": {"norm_topk_prob": True},
    "laguna": {"moe_routed_scaling_factor": 1.5, "moe_router_logit_softcapping": 2.0},
    "mistral4": LATENT
    | {
        "rope_parameters": {
            **{"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16},
            **{"mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1},
        },
    },
    "afmoe": {"num_hidden_layers": 4, "mup_enabled": True, "route_scale": 1.5},
    "dots1": {"n_group": 4, "topk_group": 2, "routed_scaling_factor": 1.5},
    "ministral3": {
        "rope_parameters": {
            **{"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16},
            **{"mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1},
        },
    },
}
DENSE = (
    *(
        "arcee",
        "cohere",
        "cohere2",
        "ernie4_5",
        "exaone4",
        "gemma",
        "gemma2",
        "gemma3_text",
        "gemma3n_text",
        "gemma4_text",
        "gemma4_text, large",
    ),
    *(
        "glm",
        "glm4",
        "granite",
        "hunyuan_v1_dense",
        "llama",
        "ministral",
        "olmo",
        "olmo2",
        "olmo3",
        "phi3",
        "seed_oss",
        "smollm3",
    ),
    *("gpt2", "helium", "minicpm3", "nanochat", "opt", "phi", "stablelm", "starcoder2", "vaultgemma", "youtu"),
    *("apertus", "jais2", "ministral3", "nemotron"),
)
EXPERTS = (
    *("axk1", "deepseek_v2", "deepseek_v3", "deepseek_v32", "glm4_moe_lite", "glm_moe_dsa", "sarvam_mla"),
    *("ernie4_5_moe", "exaone_moe", "gemma4_text, experts", "gemma4_text, experts and inputs", "glm4_moe", "gpt_oss"),
    *("granitemoe", "granitemoeshared", "llama4_text", "minimax_m2", "mixtral", "olmoe", "phimoe", "qwen2_moe"),
    *("afmoe", "dots1", "hunyuan_v1_moe", "qwen3_moe"),
    *("aria_text", "cohere2_moe", "kolibri1", "laguna", "mistral4"),
)
RARE = (
    *("dots1", "ernie4_5_moe", "exaone_moe", "granitemoeshared", "helium", "hunyuan_v1_moe", "jais2", "nemotron"),
    *("aria_text", "cohere2_moe", "kolibri1", "vaultgemma"),
)


def run(families):
    """Return families as parameters of a test, the rare ones for the slow run."""
    return [pytest.param(each, marks=pytest.mark.slow) if each in RARE else each for each in families]


def model(family):
    """Return a small model in bfloat16, with numbers so small that rounding does not explode."""
    kind = family.partition(",")[0]  # the large published models of some families compute otherwise than the small ones
    fields = {*type(tiny(kind).config).__dataclass_fields__, "global_head_dim", "num_global_key_value_heads"}
    sizes = {name: value for name, value in {**SIZES, **OTHERS.get(family, {})}.items() if name in fields}
    made = tiny(kind, 1, **sizes)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.mul_(0.2 if family in EXPERTS else 0.3)
        for index, each in enumerate(made.base_model.layers if kind == "gemma4_text" else ()):
            each.layer_scalar.fill_(0.7 + 0.1 * index)  # as published ones have it, and new ones do not
            each.self_attn.q_norm.weight.mul_(0.3)  # its scores have no other factor
            if each.enable_moe_block:
                each.self_attn.q_norm.weight.mul_(0.5)  # rounding sends fewer rows to other experts
                each.router.proj.weight.mul_(20)  # it reads rows whose length is 1
                each.router.per_expert_scale.copy_(torch.linspace(0.4, 2.5, 8))
    return made.bfloat16()


def on_kernels(family, quantization=None):
    lm = HuggingFaceLM(model(family), take_over=True, quantization=quantization)
    assert lm._fused._native is not None, lm.kernels
    return lm


def errors(found, expected):
    """Return the relative error of each row."""
    return (found - expected).norm(dim=1) / expected.norm(dim=1)


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("family", run(DENSE))
def test_logits_and_bits(family):
    ours = on_kernels(family)
    exact = HuggingFaceLM(ours.transformers_copy(torch.float32))
    text = ids(230)
    expected = exact.forward([Rows(text, exact.new_cache(230), 230)])[0]
    found = read(ours, text, 170, 1, 2, 3, 5, 8, 9, 32)
    rounding = error(found[:170], expected[:170])
    assert error(found[170:], expected[170:]) < min(0.05, 1.2 * rounding + 0.002)
    assert torch.equal(found[170:], read(ours, text, 170, *[1] * 60)[170:])


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("family", run(EXPERTS))
@pytest.mark.parametrize("quantization", [None, "int4"])
def test_experts(family, quantization):
    """Rounding sends some tokens to other experts, so the rows are compared one by one."""
    ours = on_kernels(family, quantization)
    exact = HuggingFaceLM(ours.transformers_copy(torch.float32), take_over=True)
    text = ids(230)
    expected = exact.forward([Rows(text, exact.new_cache(230), 230)])[0]
    found = read(ours, text, 170, 1, 2, 3, 5, 8, 9, 32)
    assert errors(found[170:], expected[170:]).median() < (0.12 if quantization else 0.05)
    assert torch.equal(found[170:], read(ours, text, 170, *[1] * 60)[170:])


IN_COMPANY = (
    *(
        "cohere2",
        "deepseek_v3",
        "deepseek_v32",
        "gemma2",
        "gemma3n_text",
        "gemma4_text",
        "gemma4_text, large",
        "gemma4_text, experts",
        "glm_moe_dsa",
        "gpt_oss",
    ),
    *("afmoe", "apertus", "gpt2", "laguna", "llama4_text", "ministral3", "nanochat", "olmo3", "phimoe", "qwen3_moe"),
    "mistral4",
)


@pytest.mark.parametrize("family", IN_COMPANY)
def test_company_and_shared_beginnings_change_no_bit(family):
    with rows_freed_early(ever=False):  # texts fork anywhere here
        check(on_kernels(family))


@pytest.mark.parametrize("quantization", [None, "int4"])
def test_threads_change_no_bit_of_a_step_with_streams(quantization):
    lm, before, outcomes = on_kernels("gemma3n_text", quantization), torch.get_num_threads(), []
    cache = lm.new_cache(120)
    lm.forward([Rows(ids(100), cache, 0)])
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            cache.rollback(100)
            outcomes.append(lm.forward([Rows(ids(20, 1), cache, 13)])[0])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(outcomes[1], outcomes[0]) and torch.equal(outcomes[2], outcomes[0])


@pytest.mark.parametrize("family", ["gemma3n_text", "gemma4_text, experts", "gpt2", "qwen3_moe"])
@pytest.mark.parametrize("quantization", [None, "int8"])
def test_a_piece_of_a_prompt_has_the_same_bits_beside_pieces_of_others(family, quantization):
    lm = on_kernels(family, quantization)
    assert lm.prompts_together
    pieces = [ids(count, count) for count in (33, 200, 1, 7)]
    alone, together = ([lm.new_cache(200) for _ in pieces] for _ in range(2))
    for piece, cache in zip(pieces, alone, strict=True):
        lm.forward([Rows(piece, cache, 0, of_prompt=True)])
    lm.forward([Rows(piece, cache, 0, of_prompt=True) for piece, cache in zip(pieces, together, strict=True)])
    for cache, other in zip(alone, together, strict=True):
        for layer in range(cache.layers):
            assert all(map(torch.equal, other.layer(layer), cache.layer(layer)))


@pytest.mark.once
@pytest.mark.parametrize(
    "family", ["gemma3n_text", "gemma4_text", "gemma4_text, experts", "gpt2", "laguna", "llama4_text"]
)
@pytest.mark.parametrize("eight_bits", [False, True])
def test_trees_windows_and_eight_bits_change_no_bit(family, eight_bits):
    """A branch of a tree has the bits of the chain that it is, behind rows that windows have freed."""
    lm = on_kernels(family, "int8")
    if eight_bits:
        lm.store_in_eight_bits()
    text, drafts, parents = ids(600), ids(6, 1), (-1, 0, 1, 0, 3, -1)
    with rows_freed_early():
        cache = lm.new_cache(640)
        lm.forward([Rows(text, cache, 0)])
        found = lm.forward([Rows(drafts, cache, 6, parents=parents)])[0]
        for branch in ([0, 1, 2], [0, 3, 4], [5]):
            cache.rollback(600)
            alone = torch.cat([lm.forward([Rows(drafts[row][None], cache, 1)])[0] for row in branch])
            assert torch.equal(alone, found[branch])
