"""MiMo-V2: values narrower than keys, with every setting: as transformers has it; on the kernels."""

import pytest
import torch

from rapid_integrations.cache import Rows
from rapid_integrations.kernels import cpu as native
from rapid_integrations.models.description import NotDescribedError
from rapid_integrations.models.families import describe
from rapid_integrations.models.hf import HuggingFaceLM
from tests.toys.described import assert_generates, assert_given_back, assert_on_kernels, matters, small
from tests.toys.every_family import TEXT, ids, tiny

pytestmark = pytest.mark.long

KERNELS = pytest.mark.skipif(native.native_library() is None, reason="no compiler, or RAPID_NATIVE=0")
SETTINGS = {
    "values as they are": {"attention_value_scale": None, "attention_bias": True},
    "groups": {"n_group": 2, "topk_group": 1, "routed_scaling_factor": 1.5, "norm_topk_prob": False},
    "no experts": {"mlp_layer_types": ["dense"] * 3, "v_head_dim": 12},
    "values as wide as keys": {"v_head_dim": 16},
}
WIDE = {
    **{"hidden_size": 64, "intermediate_size": 96, "moe_intermediate_size": 32, "num_attention_heads": 4},
    **{"num_key_value_heads": 1, "head_dim": 64, "v_head_dim": 32},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_greedy_output_is_what_transformers_generates(name):
    assert_generates("mimo_v2_flash", **SETTINGS[name])


@KERNELS
@pytest.mark.parametrize("quantization", [None, "int8", "int4"])
@pytest.mark.parametrize("widths", [{}, {"head_dim": 192, "v_head_dim": 128}])  # the last ones are the published ones
def test_kernels_compute_the_model_in_float32(widths, quantization):
    assert_on_kernels(small("mimo_v2_flash", **(WIDE | widths)), quantization)


@pytest.mark.parametrize("quantization", [None, "int8", "int4"])
def test_a_copy_has_the_weights_of_the_model(quantization):
    made = small("mimo_v2_flash", **WIDE)
    if quantization is None:
        return assert_given_back(made)
    lm = HuggingFaceLM(made.float(), take_over=True, quantization=quantization)
    held = HuggingFaceLM(lm.transformers_copy(torch.float32), take_over=True)
    found, expected = (each.forward([Rows(ids(), each.new_cache(TEXT), TEXT)])[0] for each in (lm, held))
    assert (found - expected).norm() / expected.norm() < 1e-3


@pytest.mark.parametrize("name", ["sinks", "v_proj.weight", "o_proj.weight"])
def test_every_part_matters(name):
    """Or the tests above would say nothing of it."""
    assert matters("mimo_v2_flash", f"model.layers.1.self_attn.{name}", -3)


def test_values_wider_than_keys_are_left_to_transformers():
    with pytest.raises(NotDescribedError, match="its values have 24 numbers, and its keys 16"):
        describe(tiny("mimo_v2_flash", v_head_dim=24))
