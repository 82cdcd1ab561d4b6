"""LFM3 with every setting of its configuration: as transformers has it; on the kernels."""

import pytest

from rapid_integrations.kernels import cpu as native
from tests.toys.described import assert_generates, assert_given_back, assert_on_kernels, matters, small

pytestmark = pytest.mark.long

KERNELS = pytest.mark.skipif(native.native_library() is None, reason="no compiler, or RAPID_NATIVE=0")
SETTINGS = {
    "no gates": {"use_attention_gate": False},
    "no norms behind": {"use_sandwich_norm": False, "conv_bias": True},
    "long convolutions": {"conv_L_cache": 7, "tie_word_embeddings": False, "attention_bias": True},
    "attention first": {"layer_types": ["sliding_attention", "conv", "full_attention"], "num_hidden_layers": 3},
}
WIDE = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}


@pytest.mark.parametrize("name", SETTINGS)
def test_greedy_output_is_what_transformers_generates(name):
    assert_generates("lfm3", **SETTINGS[name])


@KERNELS
@pytest.mark.parametrize("quantization", [None, "int8", "int4"])
@pytest.mark.parametrize("name", SETTINGS)
def test_kernels_compute_the_model_in_float32(name, quantization):
    assert_on_kernels(small("lfm3", **WIDE, **SETTINGS[name]), quantization)


def test_a_copy_has_the_weights_of_the_model():
    assert_given_back(small("lfm3", **WIDE))


@pytest.mark.parametrize("name", ["1.self_attn.g_proj", "0.post_operator_norm", "2.post_ffn_norm"])
def test_gates_and_norms_behind_parts_matter(name):
    """Or the tests above would say nothing of them."""
    assert matters("lfm3", f"model.layers.{name}.weight")
