"""Kolibri 1: experts that are chosen by what the router gives, and not by scores; on the kernels."""

import pytest
import torch

from rapid_integrations.cache import Rows
from rapid_integrations.kernels import cpu as native
from rapid_integrations.models.hf import HuggingFaceLM
from tests.toys.described import assert_generates, assert_given_back, assert_on_kernels, in_pieces, small
from tests.toys.every_family import TEXT, tiny

pytestmark = pytest.mark.long

KERNELS = pytest.mark.skipif(native.native_library() is None, reason="no compiler, or RAPID_NATIVE=0")
SETTINGS = {"weights as they are": {"norm_topk_prob": False}, "no windows": {"layer_types": ["full_attention"] * 3}}
WIDE = {
    **{"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32},
    **{"moe_intermediate_size": 32, "shared_expert_intermediate_size": 32, "norm_topk_prob": True},
}


def corrected(made):
    """Corrections of one size with the outputs, which are beyond all scores: a buffer, which is not made at random."""
    for index, layer in enumerate(made.model.layers):
        layer.mlp.gate.e_score_correction_bias.copy_(torch.tensor([3.0, -3.0, 0.5, 1.0]).roll(index))
    return made


@pytest.mark.parametrize("name", SETTINGS)
def test_greedy_output_is_what_transformers_generates(name):
    assert_generates("kolibri1", **SETTINGS[name])


def test_experts_are_chosen_by_outputs_and_corrections():
    made = corrected(tiny("kolibri1"))
    with torch.inference_mode():
        expected = made(torch.arange(5, 5 + TEXT)[None] % 250).logits
    lm = HuggingFaceLM(corrected(tiny("kolibri1")), take_over=True)
    found = lm.forward([Rows(torch.arange(5, 5 + TEXT) % 250, lm.new_cache(TEXT), TEXT)])[0]
    assert torch.allclose(found, expected[0], atol=1e-3)
    plain = HuggingFaceLM(tiny("kolibri1"), take_over=True)
    assert (in_pieces(plain, TEXT) - in_pieces(lm, TEXT)).norm() > 1


@KERNELS
@pytest.mark.parametrize("quantization", [None, "int8", "int4"])
def test_kernels_compute_the_model_in_float32(quantization):
    assert_on_kernels(corrected(small("kolibri1", **WIDE)), quantization)


def test_a_copy_has_the_weights_of_the_model():
    assert_given_back(small("kolibri1", **WIDE))
