"""Kimi Linear with every setting of its configuration: as transformers has it, or refused."""

import pytest
import torch

from rapid_integrations.cache import Rows
from rapid_integrations.kernels import cpu as native
from rapid_integrations.models.description import NotDescribedError
from rapid_integrations.models.families import describe
from rapid_integrations.models.fused_decoder import FusedDecoder
from rapid_integrations.models.hf import HuggingFaceLM
from tests.toys.decoders import error
from tests.toys.every_family import TEXT, decoded, generated, ids, tiny

pytestmark = pytest.mark.long

KERNELS = pytest.mark.skipif(native.native_library() is None, reason="no compiler, or RAPID_NATIVE=0")
D, A = "linear_attention", "full_attention"
SETTINGS = {
    "queries as they are": {"q_lora_rank": None},
    "attention first": {"layer_types": [A, D, D], "linear_conv_kernel_dim": 3},
    "attentions in a row": {"layer_types": [D, A, A], "linear_num_heads": 2, "linear_head_dim": 16},
    "no experts": {"mlp_layer_types": ["dense"] * 3},
    "groups of experts": {
        **{"num_experts": 8, "num_expert_group": 4, "topk_group": 2, "moe_renormalize": False},
        **{"routed_scaling_factor": 2.5, "num_shared_experts": 2},
    },
}
WIDE = {  # which the kernels serve
    **{"hidden_size": 64, "intermediate_size": 96, "moe_intermediate_size": 32, "linear_head_dim": 64},
    **{"linear_num_heads": 3, "q_lora_rank": 32, "kv_lora_rank": 64, "qk_nope_head_dim": 32, "qk_rope_head_dim": 32},
    "v_head_dim": 32,
}


@pytest.mark.long
@pytest.mark.parametrize("name", SETTINGS)
def test_greedy_output_is_what_transformers_generates(name):
    lm = HuggingFaceLM(tiny("kimi_linear", 2, **SETTINGS[name]), take_over=True)
    assert lm._fused is not None and decoded(lm) == generated(tiny("kimi_linear", 2, **SETTINGS[name]))


def small(**settings):
    made = tiny("kimi_linear", 1, **(WIDE | settings))
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.mul_(0.3)
    return made.bfloat16()


def read(lm, *lengths):
    cache, parts, begin = lm.new_cache(TEXT), [], 0
    for length in lengths:
        parts += lm.forward([Rows(ids()[begin : begin + length], cache, length, of_prompt=begin == 0)])
        begin += length
    return torch.cat(parts)


@pytest.mark.long
@KERNELS
@pytest.mark.parametrize("quantization", [None, "int8"])
@pytest.mark.parametrize("settings", [{}, {"layer_types": [A, D, D]}, {"q_lora_rank": None, "linear_num_heads": 1}])
def test_kernels_compute_the_model_in_float32(settings, quantization):
    ours = HuggingFaceLM(small(**settings), take_over=True, quantization=quantization)
    assert ours._fused._native is not None
    exact = HuggingFaceLM(ours.transformers_copy(torch.float32), take_over=True)
    found, expected = (read(lm, 60, 1, 2, 3, 30, 4) for lm in (ours, exact))
    errors = (found - expected).norm(dim=1) / expected.norm(dim=1)  # rounding sends some rows to other experts
    assert errors[60:].median() < (0.12 if quantization else 0.05)
    assert torch.equal(found[60:], read(ours, 60, *[1] * 40)[60:])


@KERNELS
def test_latents_in_eight_bits_and_states_as_they_are():
    lm, plain = (HuggingFaceLM(small(mlp_layer_types=["dense"] * 3), take_over=True) for _ in range(2))
    lm.store_in_eight_bits()
    assert lm.kv_bytes_per_token < plain.kv_bytes_per_token
    assert 0 < error(read(lm, 60, 20, 20), read(plain, 60, 20, 20)) < 0.05


def test_a_copy_has_the_weights_of_the_model():
    made = tiny("kimi_linear")
    before = {name: each.clone() for name, each in made.state_dict().items()}
    given = HuggingFaceLM(made, take_over=True, quantization=None).transformers_copy(torch.float32).state_dict()
    assert given.keys() == before.keys() and all(torch.equal(given[name], before[name]) for name in before)


def test_all_products_have_names_of_their_own():
    layers = FusedDecoder(tiny("kimi_linear"))._layers
    for layer in layers:
        if layer.recurrence is not None:
            held = {id(layer.recurrence.rates), id(layer.recurrence.decay_up), id(layer.recurrence.gate_up)}
            assert held < {id(product) for product in layer.products.values()}
    assert {id(layers[0].mlp[0]), id(layers[0].mlp[1])} < {id(each) for each in layers[0].products.values()}


@pytest.mark.parametrize(
    ("settings", "reason"),
    [({"hidden_act": "gelu"}, "another activation than"), ({"layer_types": [D] * 3}, "none of its layers attends")],
)
def test_what_has_no_description_is_left_to_transformers(settings, reason):
    made = tiny("kimi_linear", **settings)
    with pytest.raises(NotDescribedError, match=reason):
        describe(made)
    assert not FusedDecoder.serves(made)
