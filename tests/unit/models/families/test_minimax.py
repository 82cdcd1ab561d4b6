"""MiniMax-01: lightning attention and sums of normalised rows, with every setting; on the kernels."""

import pytest
import torch

from rapid_integrations.kernels import cpu as native
from rapid_integrations.models.description import NotDescribedError
from rapid_integrations.models.families import describe
from rapid_integrations.models.fused_decoder import FusedDecoder
from rapid_integrations.models.hf import HuggingFaceLM
from tests.toys.described import assert_generates, assert_given_back, assert_on_kernels, in_pieces, small
from tests.toys.every_family import TEXT, decoded, generated, tiny

pytestmark = pytest.mark.long

KERNELS = pytest.mark.skipif(native.native_library() is None, reason="no compiler, or RAPID_NATIVE=0")
FACTORS = {
    **{"full_attn_alpha_factor": 1.5, "full_attn_beta_factor": 0.7, "linear_attn_alpha_factor": 0.8},
    **{"linear_attn_beta_factor": 1.3, "mlp_alpha_factor": 2.0, "mlp_beta_factor": 0.6},
}
SETTINGS = {
    "factors": FACTORS,
    "lightning first": {"layer_types": ["linear_attention", "linear_attention", "full_attention"], **FACTORS},
    "lightning last": {"layer_types": ["full_attention", "full_attention", "linear_attention"]},
    "a window": {"sliding_window": 24, "block_size": 7},
}
WIDE = {"hidden_size": 64, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}


@pytest.mark.parametrize("name", SETTINGS)
def test_greedy_output_is_what_transformers_generates(name):
    if name != "lightning first":
        return assert_generates("minimax", **SETTINGS[name])
    # There transformers takes each step for the first position (5.24). It reads the whole text right.
    given = tiny("minimax", 2, **SETTINGS[name])
    given.generation_config.use_cache = False
    lm = HuggingFaceLM(tiny("minimax", 2, **SETTINGS[name]), take_over=True)
    assert lm._fused is not None and decoded(lm) == generated(given)


@KERNELS
@pytest.mark.parametrize("quantization", [None, "int8", "int4"])
@pytest.mark.parametrize("name", SETTINGS)
def test_kernels_compute_the_model_in_float32(name, quantization):
    assert_on_kernels(small("minimax", **WIDE, **SETTINGS[name]), quantization)


def test_a_copy_has_the_weights_of_the_model():
    assert_given_back(small("minimax", **WIDE))


@pytest.mark.parametrize("name", FACTORS)
def test_every_factor_matters(name):
    """Or the tests above would say nothing of it."""
    plain, changed = (HuggingFaceLM(tiny("minimax", **own), take_over=True) for own in ({}, {name: 0.75}))
    expected, found = in_pieces(plain, TEXT), in_pieces(changed, TEXT)
    assert (found - expected).norm() / expected.norm() > 1e-3


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"layer_types": ["linear_attention"] * 3}, "none of its layers attends"),
        ({"hidden_act": "gelu"}, "the activation gelu"),
    ],
)
def test_what_has_no_description_is_left_to_transformers(settings, reason):
    made = tiny("minimax", **settings)
    with pytest.raises(NotDescribedError, match=reason):
        describe(made)
    assert not FusedDecoder.serves(made)


def test_a_convolution_of_one_row_keeps_nothing():
    lm = HuggingFaceLM(tiny("minimax"), take_over=True)
    cache = lm.new_cache(TEXT)
    before = cache.state.begin(0, 1, of_prompt=True).before
    assert cache.state.shape.taps == 1 and before.inputs.shape == torch.Size([1, 0, 96])
