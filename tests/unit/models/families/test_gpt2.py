"""GPT-2 and OPT with every setting of their configurations: as transformers has them, or refused; on the kernels."""

import pytest
import torch

from rapid_integrations.cache import Rows
from rapid_integrations.errors import CacheError
from rapid_integrations.kernels import cpu as native
from rapid_integrations.models.description import NotDescribedError
from rapid_integrations.models.families import describe
from rapid_integrations.models.fused_decoder import FusedDecoder
from rapid_integrations.models.hf import HuggingFaceLM
from tests.toys.decoders import error
from tests.toys.every_family import TEXT, decoded, generated, ids, tiny

pytestmark = pytest.mark.long

KERNELS = pytest.mark.skipif(native.native_library() is None, reason="no compiler, or RAPID_NATIVE=0")
WIDE = {
    "gpt2": {"n_embd": 64, "n_inner": 96, "n_head": 2},
    "opt": {"hidden_size": 64, "word_embed_proj_dim": 64, "ffn_dim": 96, "num_attention_heads": 2},
}
SETTINGS = {
    "scales": ("gpt2", {"scale_attn_by_inverse_layer_idx": True, "scale_attn_weights": False}),
    "four times as wide": ("gpt2", {"n_inner": None, "tie_word_embeddings": False, "activation_function": "gelu"}),
    "OPT": ("opt", {}),
    "no biases": ("opt", {"enable_bias": False, "layer_norm_elementwise_affine": False}),
    "another activation": ("opt", {"activation_function": "gelu", "tie_word_embeddings": False}),
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
@pytest.mark.parametrize("quantization", [None, "int8", "int4"])
@pytest.mark.parametrize("name", SETTINGS)
def test_kernels_compute_the_model_in_float32(name, quantization):
    ours = HuggingFaceLM(small(*SETTINGS[name]), take_over=True, quantization=quantization)
    assert ours._fused._native is not None and ours.reads_trees
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


@KERNELS
@pytest.mark.parametrize("family", WIDE)
def test_a_tree_has_the_positions_of_its_texts(family):
    lm = HuggingFaceLM(small(family, {}), take_over=True)
    cache = lm.new_cache(TEXT)
    lm.forward([Rows(ids()[:60], cache, 0, of_prompt=True)])
    (chain,) = lm.forward([Rows(ids()[[60, 62, 63]], cache, 3)])
    cache.rollback(60)
    (tree,) = lm.forward([Rows(ids()[60:64], cache, 4, parents=(-1, 0, 0, 2))])
    assert torch.equal(tree[[0, 2, 3]], chain)


@pytest.mark.parametrize("family", WIDE)
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=KERNELS)])
def test_a_position_that_was_not_learned_is_refused_and_the_next_pass_works(family, dtype):
    lm = HuggingFaceLM(small(family, {"max_position_embeddings": 64}).to(dtype), take_over=True)
    assert lm.context_window == 64 and not lm.moves_keys
    cache = lm.new_cache(TEXT)
    lm.forward([Rows(ids()[:62], cache, 0, of_prompt=True)])
    for rows in (Rows(ids()[62:65], cache, 3), Rows(ids()[62:65], cache, 0, of_prompt=True)):
        with pytest.raises(CacheError, match="a row has position 64, and the model has learned 64"):
            lm.forward([rows])
    assert len(lm.forward([Rows(ids()[62:64], cache, 2)])[0]) == 2 and cache.length == 64


def test_a_tree_at_the_end_of_the_window_has_more_rows_than_positions_are_left():
    lm = HuggingFaceLM(small("gpt2", {"max_position_embeddings": 64}).float(), take_over=True)
    cache = lm.new_cache(TEXT)
    lm.forward([Rows(ids()[:62], cache, 0, of_prompt=True)])
    assert len(lm.forward([Rows(ids()[62:66], cache, 4, parents=(-1, 0, 0, -1))])[0]) == 4


@pytest.mark.parametrize("quantization", [None, "int8"])
def test_matrices_that_lie_by_columns_are_held_once_and_given_back(quantization):
    made = tiny("gpt2")
    before = {name: each.clone() for name, each in made.state_dict().items()}
    lm = HuggingFaceLM(made, take_over=True, quantization=quantization)
    given = lm.transformers_copy(torch.float32).state_dict()
    assert given.keys() == before.keys() and {name: each.shape for name, each in given.items()} == {
        name: each.shape for name, each in before.items()
    }
    matrix = made.transformer.h[0].attn.c_attn.weight
    if quantization is None:
        assert all(torch.equal(given[name], before[name]) for name in before)
        assert matrix.data_ptr() == lm._fused._layers[0].qkv.dense().data_ptr()
    else:
        assert matrix.numel() == 0


@pytest.mark.parametrize(
    ("family", "settings", "reason"),
    [
        ("gpt2", {"add_cross_attention": True}, "an encoder's states"),
        ("gpt2", {"activation_function": "tanh"}, "the activation tanh"),
        ("opt", {"do_layer_norm_before": False}, "do_layer_norm_before"),
        ("opt", {"_remove_final_layer_norm": True}, "do_layer_norm_before"),
        ("opt", {"word_embed_proj_dim": 16}, "word_embed_proj_dim"),
    ],
)
def test_what_has_no_description_is_left_to_transformers(family, settings, reason):
    made = tiny(family, **settings)
    with pytest.raises(NotDescribedError, match=reason):
        describe(made)
    assert not FusedDecoder.serves(made)


def test_a_matrix_of_another_class_is_left_to_transformers():
    made = tiny("gpt2")
    held = made.transformer.h[1].mlp.c_fc
    made.transformer.h[1].mlp.c_fc = torch.nn.Linear(held.nx, held.nf)
    with pytest.raises(NotDescribedError, match="a Linear where a plain matrix"):
        describe(made)
