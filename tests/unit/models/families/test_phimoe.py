"""Phi-3.5-MoE: its router takes experts one after another, in transformers' way and in ours."""

import pytest
import torch
from transformers.models.phimoe.modeling_phimoe import sparsemixer

from rapid_integrations.cache import Rows
from rapid_integrations.kernels import cpu as native
from rapid_integrations.kernels.layers import Routing
from rapid_integrations.models.description import NotDescribedError
from rapid_integrations.models.experts import TakenExperts
from rapid_integrations.models.families import describe
from rapid_integrations.models.hf import HuggingFaceLM
from tests.toys.every_family import TEXT, decoded, generated, ids, tiny

pytestmark = pytest.mark.long

KERNELS = pytest.mark.skipif(native.native_library() is None, reason="no compiler, or RAPID_NATIVE=0")
LONG = {
    **{"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 64, "factor": 16.0},
    **{"short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [2.0, 3.0, 5.0, 9.0]},
}
SETTINGS = {
    "biases": {"attention_bias": True, "lm_head_bias": True, "router_jitter_noise": 0.2},
    "as published": {"sliding_window": None, "rope_parameters": LONG | {"short_mscale": 1.2, "long_mscale": 1.2}},
}


@pytest.mark.parametrize("near", [0.0, 0.01, 0.2, 0.5, 1.0])
def test_experts_and_weights_are_those_of_transformers(near):
    """Also where all scores are below zero, or some are equal."""
    scores = torch.cat([torch.randn(200, 16), torch.randn(50, 16) - 5, torch.randn(50, 16).round()])
    weights, taken = sparsemixer(scores, near, training=False)
    experts = TakenExperts(Routing(taken=2, near=2 * near), torch.eye(16), None, [], [])
    found, numbers = experts.route(scores)
    assert torch.equal(numbers, taken) and torch.allclose(found, weights, atol=1e-6)


@pytest.mark.parametrize("name", SETTINGS)
def test_greedy_output_is_what_transformers_generates(name):
    lm = HuggingFaceLM(tiny("phimoe", 2, **SETTINGS[name]), take_over=True)
    assert lm._fused is not None and decoded(lm) == generated(tiny("phimoe", 2, **SETTINGS[name]))


def test_a_factor_that_follows_the_length_is_left_to_transformers():
    made = tiny("phimoe", rope_parameters=LONG | {"short_mscale": 1.0, "long_mscale": 1.2})
    with pytest.raises(NotDescribedError, match="short_mscale, long_mscale"):
        describe(made)


@KERNELS
@pytest.mark.parametrize("quantization", [None, "int8"])
@pytest.mark.parametrize("near", [0.01, 0.3, 1.0])
def test_kernels_compute_the_model_in_float32(near, quantization):
    shape = {
        "hidden_size": 64,
        "intermediate_size": 32,
        "head_dim": 32,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    made = tiny("phimoe", 1, **shape, num_local_experts=6, router_jitter_noise=near)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.mul_(0.3)
    ours = HuggingFaceLM(made.bfloat16(), take_over=True, quantization=quantization)
    assert ours._fused._native is not None
    exact = HuggingFaceLM(ours.transformers_copy(torch.float32), take_over=True)

    def read(lm, *lengths):
        cache, parts, begin = lm.new_cache(TEXT), [], 0
        for length in lengths:
            parts += lm.forward([Rows(ids()[begin : begin + length], cache, length, of_prompt=begin == 0)])
            begin += length
        return torch.cat(parts)

    found, expected = (read(lm, 60, 1, 2, 3, 30, 4) for lm in (ours, exact))
    errors = (found - expected).norm(dim=1) / expected.norm(dim=1)  # rounding sends some rows to other experts
    assert errors[60:].median() < (0.12 if quantization else 0.05)
    assert torch.equal(found[60:], read(ours, 60, *[1] * 40)[60:])
