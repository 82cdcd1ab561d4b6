"""GPT-BigCode with one head of keys and with many: as transformers has it, or refused; on the kernels."""

import pytest

from rapid_integrations.kernels import cpu as native
from rapid_integrations.models.description import NotDescribedError
from rapid_integrations.models.families import describe
from tests.toys.described import assert_generates, assert_given_back, assert_on_kernels, small
from tests.toys.every_family import tiny

pytestmark = pytest.mark.long

KERNELS = pytest.mark.skipif(native.native_library() is None, reason="no compiler, or RAPID_NATIVE=0")
SETTINGS = {
    "one head of keys": {},
    "many": {"multi_query": False, "scale_attn_weights": False},
    "a head of its own": {"tie_word_embeddings": False, "n_inner": None, "activation_function": "gelu"},
}
WIDE = {"n_embd": 64, "n_inner": 96, "n_head": 2}


@pytest.mark.parametrize("name", SETTINGS)
def test_greedy_output_is_what_transformers_generates(name):
    assert_generates("gpt_bigcode", **SETTINGS[name])


@KERNELS
@pytest.mark.parametrize("quantization", [None, "int8"])
@pytest.mark.parametrize("name", SETTINGS)
def test_kernels_compute_the_model_in_float32(name, quantization):
    assert_on_kernels(small("gpt_bigcode", **(WIDE | SETTINGS[name])), quantization)


@pytest.mark.parametrize("name", ["one head of keys", "many"])
def test_a_copy_has_the_weights_of_the_model(name):
    assert_given_back(small("gpt_bigcode", **(WIDE | SETTINGS[name])))


def test_an_encoder_is_left_to_transformers():
    with pytest.raises(NotDescribedError, match="an encoder's states"):
        describe(tiny("gpt_bigcode", add_cross_attention=True, multi_query=False))
