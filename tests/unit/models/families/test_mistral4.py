"""Mistral 4: latent attention whose queries grow, with every setting of its configuration; on the kernels."""

import pytest

from rapid_integrations.kernels import cpu as native
from rapid_integrations.models.hf import HuggingFaceLM
from tests.toys.described import assert_generates, assert_given_back, assert_on_kernels, in_pieces, small
from tests.toys.every_family import TEXT, tiny

pytestmark = pytest.mark.long

KERNELS = pytest.mark.skipif(native.native_library() is None, reason="no compiler, or RAPID_NATIVE=0")
ROPE = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16}
GROWING = {"rope_parameters": ROPE | {"mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.5}}
SETTINGS = {
    "queries as they are": {"q_lora_rank": None, **GROWING},
    "dense layers first": {"first_k_dense_replace": 2, "attention_bias": True, **GROWING},
    "groups": {"n_group": 2, "topk_group": 1, "norm_topk_prob": False, **GROWING},
    "halves": {"rope_interleave": False, **GROWING},
}
WIDE = {
    **{"hidden_size": 64, "intermediate_size": 96, "moe_intermediate_size": 32, "num_attention_heads": 2},
    **{"num_key_value_heads": 2, "kv_lora_rank": 64, "q_lora_rank": 32, "v_head_dim": 32},
    **{"qk_nope_head_dim": 32, "qk_rope_head_dim": 32},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_greedy_output_is_what_transformers_generates(name):
    assert_generates("mistral4", **SETTINGS[name])


@KERNELS
@pytest.mark.parametrize("quantization", [None, "int8"])
@pytest.mark.parametrize("name", SETTINGS)
def test_kernels_compute_the_model_in_float32(name, quantization):
    assert_on_kernels(small("mistral4", **(WIDE | SETTINGS[name])), quantization)


def test_a_copy_has_the_weights_of_the_model():
    assert_given_back(small("mistral4", **WIDE, **GROWING))


def test_growth_matters():
    """Or the tests above would say nothing of it."""
    still = {"rope_parameters": GROWING["rope_parameters"] | {"llama_4_scaling_beta": 0.0}}
    grown, plain = (in_pieces(HuggingFaceLM(tiny("mistral4", **own), take_over=True), TEXT) for own in (GROWING, still))
    assert (grown - plain)[:16].norm() / plain[:16].norm() < 1e-5
    assert (grown - plain)[16:].norm() / plain[16:].norm() > 1e-2
