"""RecurrentGemma with every setting of its configuration: as transformers has it, or refused."""

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

KERNELS = pytest.mark.skipif(native.native_library() is None, reason="no compiler, or RAPID_NATIVE=0")
R, A = "recurrent", "attention"
SETTINGS = {
    "attention first": {"block_types": [A, R, R], "conv1d_width": 2},
    "attention in the middle": {"block_types": [R, A, R], "attention_bias": True},
    "a head of its own": {"tie_word_embeddings": False, "logits_soft_cap": 5.0},
    "one key for all": {"num_key_value_heads": 1, "hidden_activation": "gelu_new"},
}
WIDE = {
    **{"hidden_size": 64, "intermediate_size": 192, "num_attention_heads": 2, "num_key_value_heads": 1},
    "attention_window_size": 20,
}


@pytest.mark.in_a_hurry(1)
@pytest.mark.parametrize("name", SETTINGS)
def test_greedy_output_is_what_transformers_generates(name):
    lm = HuggingFaceLM(tiny("recurrent_gemma", 2, **SETTINGS[name]), take_over=True)
    assert lm._fused is not None and decoded(lm) == generated(tiny("recurrent_gemma", 2, **SETTINGS[name]))


def small(**settings):
    made = tiny("recurrent_gemma", 1, **(WIDE | settings))
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.mul_(0.3)
    return made.bfloat16()


def read(lm, *lengths, prompt=True):
    cache, parts, begin = lm.new_cache(TEXT), [], 0
    for length in lengths:
        rows = Rows(ids()[begin : begin + length], cache, length, of_prompt=prompt and begin == 0)
        parts += lm.forward([rows])
        begin += length
    return torch.cat(parts)


@pytest.mark.in_a_hurry(2)
@KERNELS
@pytest.mark.parametrize("quantization", [None, "int8"])
@pytest.mark.parametrize("name", SETTINGS)
def test_kernels_compute_the_model_in_float32(name, quantization):
    ours = HuggingFaceLM(small(**SETTINGS[name]), take_over=True, quantization=quantization)
    assert ours._fused._native is not None
    exact = HuggingFaceLM(ours.transformers_copy(torch.float32), take_over=True)
    found, expected = (read(lm, 60, 1, 2, 3, 30, 4) for lm in (ours, exact))
    assert error(found[60:], expected[60:]) < max(1.5 * error(found[:60], expected[:60]), 0.04)
    assert torch.equal(found[60:], read(ours, 60, *[1] * 40)[60:])


@KERNELS
def test_a_text_that_is_read_again_begins_with_a_step():
    """Its first token adds the whole value, whoever computes it."""
    lm = HuggingFaceLM(small(), take_over=True)
    exact = HuggingFaceLM(lm.transformers_copy(torch.float32), take_over=True)
    cache = lm.new_cache(TEXT)
    lm.forward([Rows(ids()[:5], cache, 5)])  # by operators, as no layer has keys yet
    cache.rollback(0)
    found = torch.cat([lm.forward([Rows(each[None], cache, 1)])[0] for each in ids()[:20]])
    assert error(found, read(exact, 20)) < 0.04


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_copy_has_the_weights_of_the_model(dtype):
    made = small().to(dtype)
    before = {name: each.clone() for name, each in made.state_dict().items()}
    given = HuggingFaceLM(made, take_over=True).transformers_copy(dtype).state_dict()
    assert given.keys() == before.keys() and all(torch.equal(given[name], before[name]) for name in before)


@pytest.mark.in_a_hurry(1)
@pytest.mark.parametrize(
    "name", ["recurrent_param", "input_gate_weight", "recurrent_gate_bias", "recurrent_gate_weight"]
)
def test_every_part_of_a_unit_matters(name):
    """Or the tests above would say nothing of it."""
    lm, other = HuggingFaceLM(tiny("recurrent_gemma"), take_over=True), tiny("recurrent_gemma")
    with torch.no_grad():
        other.get_parameter(f"model.layers.0.temporal_block.rg_lru.{name}").mul_(0.5)
    assert error(read(HuggingFaceLM(other, take_over=True), TEXT), read(lm, TEXT)) > 1e-2


@pytest.mark.parametrize(
    ("settings", "reason"),
    [({"hidden_activation": "silu"}, "the activation silu"), ({"block_types": [R]}, "none of its layers attends")],
)
def test_what_has_no_description_is_left_to_transformers(settings, reason):
    made = tiny("recurrent_gemma", **settings)
    with pytest.raises(NotDescribedError, match=reason):
        describe(made)
    assert not FusedDecoder.serves(made)
