"""Mamba2, Falcon-H1, Nemotron-H and Bamba with every setting: as transformers has them, or refused."""

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
M, A, X, E = "linear_attention", "full_attention", "mlp", "moe"
WIDE = {  # which the kernels serve
    "falcon_h1": {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 96, "mamba_d_head": 32},
    "nemotron_h": {"hidden_size": 64, "head_dim": 32, "intermediate_size": 96, "moe_intermediate_size": 32},
    "bamba": {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 96, "mamba_d_head": 32},
}
WIDE["mamba2"] = {"hidden_size": 64, "num_heads": 4, "head_dim": 32, "state_size": 32}
WIDE["falcon_h1"] |= {"mamba_n_heads": 2, "mamba_d_ssm": 64, "head_dim": 32, "num_key_value_heads": 1}
WIDE["nemotron_h"] |= {"mamba_num_heads": 2, "mamba_head_dim": 32, "num_attention_heads": 2, "num_key_value_heads": 1}
WIDE["bamba"] |= {"mamba_n_heads": 4, "num_key_value_heads": 1}
PLAIN = {"attention_in_multiplier": 1.0, "ssm_in_multiplier": 1.0}  # which are no factors on biases
SETTINGS = {
    "norm": ("falcon_h1", {"mamba_rms_norm": True, "mamba_norm_before_gate": True, "mamba_n_groups": 2}),
    "gates before the norm": ("falcon_h1", {"mamba_rms_norm": True, "mamba_norm_before_gate": False}),
    "groups": ("falcon_h1", {"mamba_rms_norm": True, "mamba_norm_before_gate": False, "mamba_n_groups": 2}),
    "biases": (
        "falcon_h1",
        {"attention_bias": True, "mlp_bias": True, "projectors_bias": True, "mamba_proj_bias": True, **PLAIN},
    ),
    "other biases": ("falcon_h1", {"mamba_conv_bias": False, "mlp_bias": True, "projectors_bias": True}),
    "no factors": (
        "falcon_h1",
        {"ssm_multipliers": None, "mlp_multipliers": None, "key_multiplier": 1.0, "mamba_d_ssm": None, **PLAIN},
    ),
    "tied": ("falcon_h1", {"tie_word_embeddings": True, "hidden_act": "silu", "mamba_d_conv": 3}),
    "several in a row": ("nemotron_h", {"layers_block_type": [A, X, M, M, E, M]}),
    "attention last": ("nemotron_h", {"layers_block_type": [M, M, X, A]}),
    "no MLP": ("nemotron_h", {"layers_block_type": [M, A, M]}),
    "all biases": (
        "nemotron_h",
        {"mlp_bias": True, "use_bias": True, "layers_block_type": [M, X, A, X], "mlp_hidden_act": "silu"},
    ),
    "groups of experts": (
        "nemotron_h",
        {
            **{"n_routed_experts": 8, "n_group": 4, "topk_group": 2, "norm_topk_prob": False, "use_conv_bias": False},
            **{"routed_scaling_factor": 2.5, "mlp_bias": True, "layers_block_type": [A, E, M, E]},
        },
    ),
    "Mamba2's biases": ("mamba2", {"use_bias": True, "use_conv_bias": False, "n_groups": 1, "conv_kernel": 3}),
    "Mamba2's groups": ("mamba2", {"n_groups": 4, "residual_in_fp32": False, "tie_word_embeddings": True}),
    "Bamba's biases": ("bamba", {"attention_bias": True, "mlp_bias": True, "mamba_proj_bias": True}),
    "Bamba's groups": ("bamba", {"mamba_n_groups": 2, "mamba_conv_bias": False, "attn_layer_indices": [0, 2]}),
}


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


@KERNELS
@pytest.mark.parametrize("quantization", [None, "int8"])
@pytest.mark.parametrize("name", SETTINGS)
def test_kernels_compute_the_model_in_float32(name, quantization):
    family, settings = SETTINGS[name]
    if "mamba_d_ssm" in settings:
        settings = settings | {"mamba_expand": 1}
    ours = HuggingFaceLM(small(family, settings), take_over=True, quantization=quantization)
    assert ours._fused._native is not None
    exact = HuggingFaceLM(ours.transformers_copy(torch.float32), take_over=True)

    def read(lm, *lengths):
        cache, parts, begin = lm.new_cache(TEXT), [], 0
        for length in lengths:
            parts += lm.forward([Rows(ids()[begin : begin + length], cache, length, of_prompt=begin == 0)])
            begin += length
        return torch.cat(parts)

    found, expected = read(ours, 60, 1, 2, 3, 30, 4), read(exact, 60, 1, 2, 3, 30, 4)
    if E in settings.get("layers_block_type", ()):
        errors = (found - expected).norm(dim=1) / expected.norm(dim=1)  # rounding sends some rows to other experts
        assert errors[60:].median() < (0.12 if quantization else 0.05)
    else:
        assert error(found[60:], expected[60:]) < max(1.5 * error(found[:60], expected[:60]), 0.04)
    assert torch.equal(found[60:], read(ours, 60, *[1] * 40)[60:])


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=KERNELS)])
def test_least_steps_are_those_of_transformers_own_forward_of_a_whole_text(dtype):
    """Of which its single tokens know nothing, so that the load of such a float32 model is refused."""
    settings = WIDE["nemotron_h"] | {"layers_block_type": [M, X, A], "time_step_min": 0.8}
    made, other = tiny("nemotron_h", 1, **settings), tiny("nemotron_h", 1, **settings | {"time_step_min": 1e-6})
    with torch.inference_mode():
        expected, free = (each(ids()[None]).logits[0].float() for each in (made, other))
    fused = FusedDecoder(made.to(dtype))
    assert (fused._native is not None) == (dtype == torch.bfloat16)
    cache, parts, begin = fused.new_cache(TEXT), [], 0
    for length in (60, 1, 1, 8, 30):
        parts += fused.forward([Rows(ids()[begin : begin + length], cache, length, of_prompt=begin == 0)])
        cache.advance(length)
        begin += length
    found = torch.cat(parts)
    assert error(found, expected) < (1e-4 if dtype == torch.float32 else 0.1) < error(free, expected)


@pytest.mark.parametrize(
    ("family", "settings", "reason"),
    [
        ("falcon_h1", {"attention_bias": True}, "what its attention reads"),
        ("falcon_h1", {"mamba_proj_bias": True}, "what its Mamba2 reads"),
        ("falcon_h1", {"time_step_limit": (0.0, 0.1)}, "steps are limited"),
        ("falcon_h1", {"hidden_act": "gelu"}, "another activation"),
        ("nemotron_h", {"layers_block_type": [X, M, A]}, "first one"),
        ("nemotron_h", {"layers_block_type": [M, X, E, A]}, "follows another such one"),
        ("nemotron_h", {"layers_block_type": [M, X]}, "none of its layers attends"),
        ("nemotron_h", {"moe_latent_size": 16}, "moe_latent_size"),
        ("nemotron_h", {"mamba_hidden_act": "gelu"}, "another activation"),
        ("nemotron_h", {"mlp_hidden_act": "tanh"}, "the activation tanh"),
        ("bamba", {"attn_layer_indices": []}, "none of its layers attends"),
        ("bamba", {"time_step_limit": (0.0, 0.1)}, "steps are limited"),
    ],
)
def test_what_has_no_description_is_left_to_transformers(family, settings, reason):
    made = tiny(family, **settings)
    with pytest.raises(NotDescribedError, match=reason):
        describe(made)
    assert not FusedDecoder.serves(made)


@KERNELS
def test_an_attention_beside_a_recurrence_has_keys_in_eight_bits():
    lm, plain = (HuggingFaceLM(small("falcon_h1", {}), take_over=True) for _ in range(2))
    lm.store_in_eight_bits()
    assert lm.kv_bytes_per_token < plain.kv_bytes_per_token and not lm.has_parts

    def read(lm):
        cache = lm.new_cache(TEXT)
        lm.forward([Rows(ids()[:60], cache, 0, of_prompt=True)])
        return lm.forward([Rows(ids()[60:80], cache, 20)])[0]

    assert 0 < error(read(lm), read(plain)) < 0.05


def test_a_copy_has_the_weights_that_blocks_of_two_kinds_had():
    made = tiny("nemotron_h", layers_block_type=[M, X, M, A, E])
    before = {name: each.clone() for name, each in made.state_dict().items()}
    given = HuggingFaceLM(made, take_over=True).transformers_copy(torch.float32).state_dict()
    assert given.keys() == before.keys() and all(torch.equal(given[name], before[name]) for name in before)


@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_weights_are_lent_to_blocks_of_two_kinds(quantization):
    """The comparison at load runs transformers' forward with quantised weights: a block has its own while it runs."""
    lm = HuggingFaceLM(
        small("nemotron_h", {"layers_block_type": [M, X, A, M, E]}).float(), take_over=True, quantization=quantization
    )
    held = HuggingFaceLM(lm.transformers_copy(torch.float32))
    found, expected = (each.forward([Rows(ids(), each.new_cache(TEXT), TEXT)])[0] for each in (lm, held))
    assert error(found, expected) < 1e-3
