"""Laguna: gates of heads, heads that differ by layer and capped routers, with every setting; on the kernels."""

import pytest

from rapid_integrations.kernels import cpu as native
from rapid_integrations.models.hf import HuggingFaceLM
from tests.toys.described import assert_generates, assert_given_back, assert_on_kernels, in_pieces, matters, small
from tests.toys.every_family import TEXT, tiny

pytestmark = pytest.mark.long

KERNELS = pytest.mark.skipif(native.native_library() is None, reason="no compiler, or RAPID_NATIVE=0")
SETTINGS = {
    "a gate for each number": {"gating": "per-element"},
    "as many heads everywhere": {"num_attention_heads_per_layer": None, "attention_bias": True},
    "fewer heads than the first": {"num_attention_heads_per_layer": [4, 2, 6]},
    "a capped router": {"moe_router_logit_softcapping": 0.5, "moe_routed_scaling_factor": 2.5},
    "no experts": {"mlp_layer_types": ["dense"] * 3},
}
WIDE = {
    **{"hidden_size": 64, "intermediate_size": 96, "head_dim": 32, "moe_intermediate_size": 32},
    "shared_expert_intermediate_size": 32,
}


@pytest.mark.parametrize("name", SETTINGS)
def test_greedy_output_is_what_transformers_generates(name):
    assert_generates("laguna", **SETTINGS[name])


@KERNELS
@pytest.mark.parametrize("quantization", [None, "int8", "int4"])
@pytest.mark.parametrize("name", SETTINGS)
def test_kernels_compute_the_model_in_float32(name, quantization):
    assert_on_kernels(small("laguna", **WIDE, **SETTINGS[name]), quantization)


def test_a_copy_has_the_weights_of_the_model():
    assert_given_back(small("laguna", **WIDE))


def test_gates_matter():
    """Or the tests above would say nothing of them."""
    assert matters("laguna", "model.layers.1.self_attn.g_proj.weight")


def test_corrections_and_caps_matter():
    """The toys' corrections are random, and a cap below the outputs' size sends rows to other experts' weights."""
    made = tiny("laguna")
    assert made.model.layers[1].mlp.gate.e_score_correction_bias.abs().max() > 0.1
    plain, others = HuggingFaceLM(made, take_over=True), tiny("laguna")
    for layer in others.model.layers[1:]:
        layer.mlp.gate.e_score_correction_bias.mul_(-1)
    capped = HuggingFaceLM(tiny("laguna", moe_router_logit_softcapping=0.2), take_over=True)
    expected = in_pieces(plain, TEXT)
    for each in (HuggingFaceLM(others, take_over=True), capped):
        assert (in_pieces(each, TEXT) - expected).norm() / expected.norm() > 1e-2
