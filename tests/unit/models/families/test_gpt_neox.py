"""GPT-NeoX with every setting of its configuration: as transformers has it, and on the kernels."""

import pytest
import torch

from rapid_integrations.cache import Rows
from rapid_integrations.kernels import cpu as native
from rapid_integrations.models.families import describe
from rapid_integrations.models.hf import HuggingFaceLM
from tests.toys.decoders import error
from tests.toys.every_family import TEXT, decoded, generated, ids, tiny

KERNELS = pytest.mark.skipif(native.native_library() is None, reason="no compiler, or RAPID_NATIVE=0")
SETTINGS = {
    "one behind the other": {"use_parallel_residual": False},
    "no biases": {"attention_bias": False, "hidden_act": "gelu_new"},
    "all rotated, tied": {"rotary_pct": 1.0, "tie_word_embeddings": True},
}


def made(**settings):
    """A model whose two norms of a layer differ, as those of a new one do not."""
    model = tiny("gpt_neox", 2, **settings)
    with torch.no_grad():
        for each in model.gpt_neox.layers:
            each.input_layernorm.weight.mul_(1.5).add_(0.1 * torch.arange(len(each.input_layernorm.weight)) / 32)
    return model


@pytest.mark.in_a_hurry(1)
@pytest.mark.parametrize("name", SETTINGS)
def test_greedy_output_is_what_transformers_generates(name):
    lm = HuggingFaceLM(made(**SETTINGS[name]), take_over=True)
    assert lm._fused is not None and decoded(lm) == generated(made(**SETTINGS[name]))


def test_each_part_reads_rows_behind_its_own_norm():
    assert HuggingFaceLM(made(), take_over=True)._fused is not None  # it was compared with transformers' own
    assert all(each.norms_apart for each in describe(made()).layers) and describe(made()).beyond_gpus
    assert not any(each.norms_apart for each in describe(tiny("cohere")).layers)


@KERNELS
@pytest.mark.parametrize("quantization", [None, "int8"])
@pytest.mark.parametrize("parallel", [True, False])
def test_kernels_compute_the_model_in_float32(parallel, quantization):
    shape = {"hidden_size": 128, "intermediate_size": 96, "use_parallel_residual": parallel}
    model = made(**shape)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(0.3)
    ours = HuggingFaceLM(model.bfloat16(), take_over=True, quantization=quantization)
    assert ours._fused._native is not None
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
