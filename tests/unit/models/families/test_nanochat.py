"""nanochat with every setting of its configuration: as transformers has it, and on the kernels."""

import pytest
import torch

from rapid_integrations.cache import Rows
from rapid_integrations.kernels import cpu as native
from rapid_integrations.models.hf import HuggingFaceLM
from tests.toys.decoders import error
from tests.toys.every_family import TEXT, decoded, generated, ids, tiny

pytestmark = pytest.mark.long

KERNELS = pytest.mark.skipif(native.native_library() is None, reason="no compiler, or RAPID_NATIVE=0")
SETTINGS = {
    "as it is": {},
    "biases": {"attention_bias": True, "hidden_act": "gelu_new"},
    "no cap, tied": {"final_logit_softcapping": None, "tie_word_embeddings": True},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_greedy_output_is_what_transformers_generates(name):
    lm = HuggingFaceLM(tiny("nanochat", 2, **SETTINGS[name]), take_over=True)
    assert lm._fused is not None and decoded(lm) == generated(tiny("nanochat", 2, **SETTINGS[name]))


@KERNELS
@pytest.mark.parametrize("quantization", [None, "int8"])
@pytest.mark.parametrize("name", SETTINGS)
def test_kernels_compute_the_model_in_float32(name, quantization):
    shape = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 2, "num_key_value_heads": 1}
    made = tiny("nanochat", 1, **shape, **SETTINGS[name])
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.mul_(0.3)
    ours = HuggingFaceLM(made.bfloat16(), take_over=True, quantization=quantization)
    assert ours._fused._native is not None and not ours.moves_keys
    exact = HuggingFaceLM(ours.transformers_copy(torch.float32), take_over=True)

    def read(lm, *lengths):
        cache, parts, begin = lm.new_cache(TEXT), [], 0
        for length in lengths:
            parts += lm.forward([Rows(ids()[begin : begin + length], cache, length, of_prompt=begin == 0)])
            begin += length
        return torch.cat(parts)

    found, expected = (read(lm, 60, 1, 2, 3, 30, 4) for lm in (ours, exact))
    assert error(found[60:], expected[60:]) < max(1.5 * error(found[:60], expected[:60]), 0.04)
    assert torch.equal(found[60:], read(ours, 60, *[1] * 40)[60:])
