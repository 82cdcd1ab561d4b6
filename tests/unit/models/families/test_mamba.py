"""Mamba, Falcon-Mamba and Jamba with every setting of their configurations: as transformers has them, or refused."""

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
WIDE = {  # which the kernels serve
    "mamba": {"hidden_size": 64, "state_size": 16},
    "falcon_mamba": {"hidden_size": 64, "state_size": 16},
    "jamba": {
        **{"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 2, "num_key_value_heads": 1},
        "mamba_d_state": 16,
    },
}
SETTINGS = {
    "biases": ("mamba", {"use_bias": True, "use_conv_bias": False}),
    "a head of its own": ("mamba", {"tie_word_embeddings": False, "conv_kernel": 2}),
    "residuals as they are": ("mamba", {"residual_in_fp32": False, "expand": 3}),
    "a wide step": ("mamba", {"time_step_rank": 33, "state_size": 5}),
    "norms without weights": ("falcon_mamba", {"mixer_rms_eps": 0.3, "use_bias": True}),
    "attention first": ("jamba", {"attn_layer_period": 2, "attn_layer_offset": 0}),
    "attention last": ("jamba", {"attn_layer_period": 3, "attn_layer_offset": 2, "mamba_proj_bias": True}),
    "experts in every layer": ("jamba", {"expert_layer_period": 1, "expert_layer_offset": 0, "num_experts": 5}),
    "no experts": ("jamba", {"num_experts": 1, "num_experts_per_tok": 1, "mamba_conv_bias": False}),
}


@pytest.mark.in_a_hurry(3)
@pytest.mark.parametrize("name", SETTINGS)
def test_greedy_output_is_what_transformers_generates(name):
    family, settings = SETTINGS[name]
    lm = HuggingFaceLM(tiny(family, 2, **settings), take_over=True)
    assert lm._fused is not None and decoded(lm) == generated(tiny(family, 2, **settings))


def small(family, settings):
    made = tiny(family, 1, **(WIDE[family] | settings))
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


@pytest.mark.in_a_hurry(3)
@KERNELS
@pytest.mark.parametrize("quantization", [None, "int8"])
@pytest.mark.parametrize("name", SETTINGS)
def test_kernels_compute_the_model_in_float32(name, quantization):
    family, settings = SETTINGS[name]
    ours = HuggingFaceLM(small(family, settings), take_over=True, quantization=quantization)
    assert ours._fused._native is not None
    exact = HuggingFaceLM(ours.transformers_copy(torch.float32), take_over=True)
    found, expected = read(ours, 60, 1, 2, 3, 30, 4), read(exact, 60, 1, 2, 3, 30, 4)
    errors = (found - expected).norm(dim=1) / expected.norm(dim=1)  # rounding sends some rows to other experts
    assert errors[60:].median() < (0.12 if quantization else 0.05)
    assert torch.equal(found[60:], read(ours, 60, *[1] * 40)[60:])


@KERNELS
def test_a_text_without_keys_begins_with_a_step():
    """No layer has keys that a prompt would have to write first, so that the kernels read even the first token."""
    lm = HuggingFaceLM(small("mamba", {}), take_over=True)
    cache = lm.new_cache(TEXT)
    assert cache.layers == 0 and lm.state_bytes and not lm.windowed[0]
    alone = torch.cat([lm.forward([Rows(each[None], cache, 1)])[0] for each in ids()[:40]])
    other = lm.new_cache(TEXT)
    assert torch.equal(lm.forward([Rows(ids()[:20], other, 20)])[0], alone[:20])
    behind = other.fork(20, 2 * TEXT)
    assert behind.reusable(20) == 20
    assert torch.equal(lm.forward([Rows(ids()[20:40], behind, 20)])[0], alone[20:])


@KERNELS
def test_keys_in_eight_bits_change_no_model_without_keys():
    lm, plain = (HuggingFaceLM(small("mamba", {}), take_over=True) for _ in range(2))
    lm.store_in_eight_bits()
    assert torch.equal(read(lm, 60, 20), read(plain, 60, 20))


@pytest.mark.parametrize("family", WIDE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_copy_has_the_weights_of_the_model(family, dtype):
    made = small(family, {}).to(dtype)
    before = {name: each.clone() for name, each in made.state_dict().items()}
    given = HuggingFaceLM(made, take_over=True).transformers_copy(dtype).state_dict()
    assert given.keys() == before.keys() and all(torch.equal(given[name], before[name]) for name in before)


@pytest.mark.in_a_hurry(2)
@pytest.mark.parametrize("name", ["A_log", "dt_proj.bias", "D", "conv1d.bias", "x_proj.weight"])
def test_every_part_of_a_mamba_matters(name):
    """Or the tests above would say nothing of it."""
    lm = HuggingFaceLM(tiny("mamba"), take_over=True)
    other = tiny("mamba")
    with torch.no_grad():
        other.get_parameter(f"backbone.layers.0.mixer.{name}").mul_(0.5)
    assert error(read(HuggingFaceLM(other, take_over=True), TEXT), read(lm, TEXT)) > 1e-2


@pytest.mark.parametrize(
    ("family", "settings", "reason"),
    [
        ("mamba", {"hidden_act": "gelu"}, "the activation gelu"),
        ("jamba", {"hidden_act": "gelu"}, "the activation gelu"),
        ("jamba", {"attn_layer_period": 8, "attn_layer_offset": 7}, "none of its layers attends"),
    ],
)
def test_what_has_no_description_is_left_to_transformers(family, settings, reason):
    made = tiny(family, **settings)
    with pytest.raises(NotDescribedError, match=reason):
        describe(made)
    assert not FusedDecoder.serves(made)
