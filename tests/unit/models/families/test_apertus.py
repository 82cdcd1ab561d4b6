"""Apertus: its activation with learned factors, with every setting, as transformers has it; on the kernels."""

import pytest
import torch

from rapid_integrations.kernels import cpu as native
from rapid_integrations.models.families import describe
from rapid_integrations.models.hf import HuggingFaceLM
from tests.toys.described import assert_generates, assert_given_back, assert_on_kernels, matters, small
from tests.toys.every_family import tiny

pytestmark = pytest.mark.long

KERNELS = pytest.mark.skipif(native.native_library() is None, reason="no compiler, or RAPID_NATIVE=0")
SETTINGS = {
    "biases": {"attention_bias": True, "tie_word_embeddings": True},
    "another activation": {"hidden_act": "relu2"},
}
WIDE = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}


@pytest.mark.parametrize("name", SETTINGS)
def test_greedy_output_is_what_transformers_generates(name):
    assert_generates("apertus", **SETTINGS[name])


def test_a_head_that_says_fewer_tokens_than_are_read():
    """Apertus 1.5 reads tokens of pictures and sounds, and writes none."""
    assert_generates("apertus1p5_text", output_vocab_size=200, tie_word_embeddings=False)


@KERNELS
@pytest.mark.parametrize("quantization", [None, "int8", "int4"])
def test_kernels_compute_the_model_in_float32(quantization):
    assert_on_kernels(small("apertus", **WIDE), quantization)


@KERNELS
def test_factors_are_rounded_as_the_model_does():
    made = small("apertus", **WIDE)
    act = made.model.layers[0].mlp.act_fn.requires_grad_(False)
    numbers = describe(made).layers[0].mlp.xielu.numbers
    x = torch.tensor([2.0, -1.0]).bfloat16()
    above, below = act(x).float()
    assert above == pytest.approx(numbers.positive * 4 + numbers.slope * 2, rel=1e-2)
    assert below == pytest.approx(numbers.negative * (torch.tensor(-1.0).expm1() + 1).item() - numbers.slope, rel=1e-2)
    assert numbers.least == act.eps.item() and numbers.positive == torch.nn.functional.softplus(act.alpha_p).item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_copy_has_the_weights_of_the_model(dtype):
    assert_given_back(small("apertus", **WIDE).to(dtype))


@pytest.mark.parametrize("name", ["alpha_p", "alpha_n"])
def test_every_learned_factor_matters(name):
    """Or the tests above would say nothing of it."""
    assert matters("apertus", f"model.layers.1.mlp.act_fn.{name}")


def test_kernels_for_gpus_leave_it_to_the_operators():
    assert "xIELU" in describe(tiny("apertus")).beyond_gpus
    assert HuggingFaceLM(tiny("apertus"), take_over=True).passes_together
