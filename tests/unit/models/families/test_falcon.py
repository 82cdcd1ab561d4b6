"""Falcon of every generation with rotations: as transformers has it, or refused; on the kernels."""

import pytest
import torch

from rapid_integrations.errors import UnsupportedModelError
from rapid_integrations.kernels import cpu as native
from rapid_integrations.models.description import NotDescribedError
from rapid_integrations.models.families import describe
from rapid_integrations.models.hf import HuggingFaceLM
from tests.toys.described import assert_generates, assert_given_back, assert_on_kernels, matters, small
from tests.toys.every_family import tiny

pytestmark = pytest.mark.long

KERNELS = pytest.mark.skipif(native.native_library() is None, reason="no compiler, or RAPID_NATIVE=0")
SETTINGS = {
    "7B": {},
    "40B": {"new_decoder_architecture": True, "num_kv_heads": 2},
    "11B": {"new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1},
    "one behind the other": {"parallel_attn": False, "bias": True, "multi_query": False, "num_kv_heads": None},
    "another activation": {"activation": "gelu_pytorch_tanh", "tie_word_embeddings": False},
}
WIDE = {"hidden_size": 128, "ffn_hidden_size": 96}


@pytest.mark.parametrize("name", SETTINGS)
def test_greedy_output_is_what_transformers_generates(name):
    assert_generates("falcon", **SETTINGS[name])


@KERNELS
@pytest.mark.parametrize("quantization", [None, "int8", "int4"])
@pytest.mark.parametrize("name", SETTINGS)
def test_kernels_compute_the_model_in_float32(name, quantization):
    assert_on_kernels(small("falcon", **WIDE, **SETTINGS[name]), quantization)


@pytest.mark.parametrize("name", ["7B", "40B"])
def test_a_copy_has_the_weights_of_the_model(name):
    assert_given_back(small("falcon", **WIDE, **SETTINGS[name]))


@pytest.mark.parametrize("name", ["ln_attn.weight", "ln_mlp.bias", "self_attention.dense.weight"])
def test_every_part_matters(name):
    """Or the tests above would say nothing of it."""
    assert matters("falcon", f"transformer.h.1.{name}", **SETTINGS["40B"])


def test_alibi_is_refused_with_the_reason():
    made = tiny("falcon", alibi=True)
    with pytest.raises(NotDescribedError, match="ALiBi, a bias that grows with the distance"):
        describe(made)
    with pytest.raises(UnsupportedModelError, match="ALiBi"):
        HuggingFaceLM(made, take_over=True)


@torch.inference_mode()
def test_a_model_that_others_use_is_refused_with_the_way_out():
    made = tiny("falcon")
    with pytest.raises(UnsupportedModelError, match="computes it in code of its own. Load it by its name or folder"):
        HuggingFaceLM(made)
