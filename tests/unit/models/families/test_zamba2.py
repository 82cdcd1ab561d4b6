"""Zamba2 with every setting of its configuration: as transformers has it, or refused; shared weights are held once."""

import pytest
import torch

from rapid_integrations.cache import Rows
from rapid_integrations.kernels import cpu as native
from rapid_integrations.models.description import NotDescribedError
from rapid_integrations.models.families import describe, left_over
from rapid_integrations.models.fused_decoder import FusedDecoder
from rapid_integrations.models.hf import HuggingFaceLM
from tests.toys.decoders import error
from tests.toys.every_family import TEXT, decoded, generated, ids, tiny

pytestmark = pytest.mark.long

KERNELS = pytest.mark.skipif(native.native_library() is None, reason="no compiler, or RAPID_NATIVE=0")
M, H = "linear_attention", "hybrid"
WIDE = {  # which the kernels serve: heads of 32 numbers, of rows of 128
    **{"hidden_size": 64, "intermediate_size": 96, "mamba_d_state": 32, "n_mamba_heads": 4, "adapter_rank": 32},
    "attention_head_dim": 32,
}
SETTINGS = {
    "as it is": {},
    "the first layer attends": {"layers_block_type": [H, M, H], "num_hidden_layers": 3},
    "one block": {"num_mem_blocks": 1},
    "a block for each": {"num_mem_blocks": 3},
    "few adapters, few keys": {"use_shared_attention_adapter": False, "num_key_value_heads": 2},
    "no rotations": {"use_mem_rope": False, "hidden_act": "silu"},
    "biases": {"add_bias_linear": True, "mamba_ngroups": 1, "mamba_d_conv": 3},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_greedy_output_is_what_transformers_generates(name):
    lm = HuggingFaceLM(tiny("zamba2", 2, **SETTINGS[name]), take_over=True)
    assert lm._fused is not None and decoded(lm) == generated(tiny("zamba2", 2, **SETTINGS[name]))


@pytest.mark.parametrize("part", ["linear_q_adapter_list", "linear_v_adapter_list", "gate_up_proj_adapter_list"])
def test_each_place_has_adapters_of_its_own(part):
    """Or the test above would say nothing of them: the third use of a block has others than the first."""
    made = tiny("zamba2", 2)
    block = made.model.layers[4].shared_transformer
    owner = block.feed_forward if part.startswith("gate") else block.self_attn
    pairs = getattr(owner, part)
    with torch.inference_mode():
        before = made(ids()[None]).logits.clone()
        pairs[2][0].weight.copy_(pairs[0][0].weight)
        after = made(ids()[None]).logits
    assert not torch.allclose(before, after, atol=0.01)


def small(settings):
    made = tiny("zamba2", 1, **(WIDE | settings))
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.mul_(0.4)
    return made.bfloat16()


def read(lm, *lengths):
    cache, parts, begin = lm.new_cache(TEXT), [], 0
    for length in lengths:
        parts += lm.forward([Rows(ids()[begin : begin + length], cache, length, of_prompt=begin == 0)])
        begin += length
    return torch.cat(parts)


@KERNELS
@pytest.mark.parametrize("quantization", [None, "int8", "int4"])
@pytest.mark.parametrize("name", SETTINGS)
def test_kernels_compute_the_model_in_float32(name, quantization):
    ours = HuggingFaceLM(small(SETTINGS[name]), take_over=True, quantization=quantization)
    assert ours._fused._native is not None
    exact = HuggingFaceLM(ours.transformers_copy(torch.float32), take_over=True)
    found, expected = read(ours, 60, 1, 2, 3, 30, 4), read(exact, 60, 1, 2, 3, 30, 4)
    assert error(found[60:], expected[60:]) < max(1.5 * error(found[:60], expected[:60]), 0.04)
    assert torch.equal(found[60:], read(ours, 60, *[1] * 40)[60:])


@KERNELS
@pytest.mark.parametrize(("heads", "width"), [(2, 160), (2, 224)])
def test_heads_of_published_models_are_on_the_kernels(heads, width):
    """Of 2.7 and 7 billion parameters they have 160 and 224 numbers."""
    shape = {"hidden_size": heads * width // 2, "num_attention_heads": heads, "num_key_value_heads": heads}
    shape["attention_head_dim"] = width
    ours = HuggingFaceLM(small(shape | {"num_mem_blocks": 1, "n_mamba_heads": 2}), take_over=True)
    assert ours._fused._native is not None and {each.head_dim for each in [ours._fused._described]} == {width}
    exact = HuggingFaceLM(ours.transformers_copy(torch.float32), take_over=True)
    found, expected = read(ours, 60, 1, 2, 3, 30, 4), read(exact, 60, 1, 2, 3, 30, 4)
    assert error(found[60:], expected[60:]) < max(1.5 * error(found[:60], expected[:60]), 0.04)
    assert torch.equal(found[60:], read(ours, 60, *[1] * 40)[60:])


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=KERNELS)])
def test_least_steps_are_those_of_transformers_own_forward_of_a_whole_text(dtype):
    """Of which its single tokens know nothing, as of Nemotron-H."""
    made, other = (small({"time_step_min": least}).float() for least in (8.0, 1e-6))
    with torch.inference_mode():
        expected, free = (each(ids()[None]).logits[0].float() for each in (made, other))
    fused = FusedDecoder(made.to(dtype))
    assert (fused._native is not None) == (dtype == torch.bfloat16)
    cache, parts, begin = fused.new_cache(TEXT), [], 0
    for length in (60, 1, 1, 8, 30):
        parts += fused.forward([Rows(ids()[begin : begin + length], cache, length, of_prompt=begin == 0)])
        cache.advance(length)
        begin += length
    assert error(torch.cat(parts), expected) < (1e-4 if dtype == torch.float32 else 0.05) < error(free, expected)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"layers_block_type": [M, M], "num_hidden_layers": 2}, "none of its layers attends"),
        ({"hidden_act": "tanh"}, "the activation tanh"),
        ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "the length of the text"),
    ],
)
def test_what_has_no_description_is_left_to_transformers(settings, reason):
    made = tiny("zamba2", **settings)
    with pytest.raises(NotDescribedError, match=reason):
        describe(made)
    assert not FusedDecoder.serves(made)


def test_blocks_that_share_nothing_are_left_to_transformers():
    """Each has adapters for every place then, of which it uses its own alone: no published model has that."""
    made = tiny("zamba2", tie_word_embeddings=False)
    assert left_over(made, describe(made)) and not FusedDecoder.serves(made)


@pytest.mark.parametrize("quantization", [None, "int4"])
def test_shared_matrices_are_held_once(quantization):
    made = small({})
    fused = FusedDecoder(made, quantization)
    blocks = [layer for layer in fused._layers if layer.aside is not None]
    assert len(blocks) == 3 and blocks[0].qkv is blocks[2].qkv is not blocks[1].qkv
    assert blocks[0].mlp == blocks[2].mlp and blocks[0].out is blocks[2].out
    # adapters are each place's own, and numbers of the model's dtype
    assert blocks[0].adapters[0].down is not blocks[2].adapters[0].down
    assert blocks[0].adapters[1].down.dense().dtype == torch.bfloat16
    both = made.model.layers[1].shared_transformer, made.model.layers[4].shared_transformer
    assert len({each.self_attn.q_proj.weight.data_ptr() for each in both}) == 1
    assert quantization is None or both[0].self_attn.q_proj.weight.numel() == 0


def test_a_copy_has_the_weights_and_shares_them():
    made = tiny("zamba2")
    before = {name: each.clone() for name, each in made.state_dict().items()}
    copy = HuggingFaceLM(made, take_over=True).transformers_copy(torch.float32)
    given = copy.state_dict()
    assert given.keys() == before.keys() and all(torch.equal(given[name], before[name]) for name in before)
    assert copy.num_parameters() - copy.lm_head.weight.numel() == tiny("zamba2").num_parameters()


@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_weights_are_lent_to_blocks_that_share_them(quantization):
    """The comparison at load runs transformers' forward with quantised weights: a layer has its own while it runs."""
    lm = HuggingFaceLM(small({}).float(), take_over=True, quantization=quantization)
    held = HuggingFaceLM(lm.transformers_copy(torch.float32))
    found, expected = (each.forward([Rows(ids(), each.new_cache(TEXT), TEXT)])[0] for each in (lm, held))
    assert error(found, expected) < 1e-3


@KERNELS
def test_keys_in_eight_bits():
    lm, plain = (HuggingFaceLM(small({}), take_over=True) for _ in range(2))
    lm.store_in_eight_bits()
    assert lm.kv_bytes_per_token < plain.kv_bytes_per_token and not lm.has_parts
    assert 0 < error(read(lm, 60, 20), read(plain, 60, 20)) < 0.05
