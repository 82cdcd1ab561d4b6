"""Cohere 2 with experts, with every setting of its configuration: as transformers has it; on the kernels."""

import pytest

from rapid_integrations.kernels import cpu as native
from tests.toys.described import assert_generates, assert_given_back, assert_on_kernels, small

pytestmark = pytest.mark.long

KERNELS = pytest.mark.skipif(native.native_library() is None, reason="no compiler, or RAPID_NATIVE=0")
SETTINGS = {
    "no shared expert": {"num_shared_experts": 0},
    "sums": {"shared_expert_combination_strategy": "sum", "rms_norm_eps": 1e-5},
    "sigmoids": {"expert_selection_fn": "sigmoid"},
    "sigmoids as they are": {"expert_selection_fn": "sigmoid", "norm_topk_prob": False, "attention_bias": True},
    "dense layers first": {"layer_types": None, "first_k_dense_replace": 2, "prefix_dense_intermediate_size": 64},
    "dense layers with windows": {
        **{"layer_types": None, "first_k_dense_replace": 2, "prefix_dense_intermediate_size": 64},
        "prefix_dense_sliding_window_pattern": 2,
    },
}
WIDE = {"hidden_size": 64, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}


@pytest.mark.parametrize("name", SETTINGS)
def test_greedy_output_is_what_transformers_generates(name):
    assert_generates("cohere2_moe", **SETTINGS[name])


@KERNELS
@pytest.mark.parametrize("quantization", [None, "int8"])
@pytest.mark.parametrize("name", SETTINGS)
def test_kernels_compute_the_model_in_float32(name, quantization):
    assert_on_kernels(small("cohere2_moe", **WIDE, **SETTINGS[name]), quantization)


def test_a_copy_has_the_weights_of_the_model():
    assert_given_back(small("cohere2_moe", **WIDE))
