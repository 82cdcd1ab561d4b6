"""Products of int8 and int4 weights: with inputs of eight bits, exactly as `eight_bits.rounded` says, on both paths."""

import pytest
import torch

from rapid_integrations.cache import Rows
from rapid_integrations.cache.arena import Arena
from rapid_integrations.kernels import cpu as native
from rapid_integrations.kernels.cpu import library
from rapid_integrations.kernels.cpu.matrices import product
from rapid_integrations.models.hf import HuggingFaceLM
from rapid_integrations.models.linear import Int4Linear, Int8Linear
from tests.toys.decoders import ids, model
from tests.toys.models import VOCAB_SIZE
from tests.unit.kernels.cpu.eight_bits import exact_weights, rounded

pytestmark = pytest.mark.skipif(native.native_library() is None, reason="no compiler, or RAPID_NATIVE=0")
FORMS = ["int8", "int4"]


@pytest.fixture(params=["fast", pytest.param("portable", marks=pytest.mark.process)])
def path(request, monkeypatch):
    if request.param == "portable":
        monkeypatch.setattr(library, "_outcome", library._Outcome(request.getfixturevalue("portable")))


def one_layer(quantization, **config):
    """Return a model whose layer adds nothing, and the weights of its first and its last product."""
    made = model("qwen2", num_hidden_layers=1, **config)
    layer = made.base_model.layers[0]
    with torch.no_grad():
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
        for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj):
            projection.bias.normal_(generator=torch.Generator().manual_seed(5))
        made.base_model.embed_tokens.weight[7] = 0  # a row without a scale
        made.base_model.embed_tokens.weight[8] *= torch.logspace(-3, 3, made.config.hidden_size)
    return HuggingFaceLM(made, take_over=True, quantization=quantization)


def errors(found, expected):
    """Return the relative error of each row that is not nearly zero."""
    found, expected = found.double(), expected.double()
    size = expected.norm(dim=-1)
    return ((found - expected).norm(dim=-1) / size)[size > 1e-6]


def check(found, expected, limit):
    """The last bit of a norm decides over a level of few inputs; all others are the same."""
    each = errors(found, expected)
    assert each.median() < limit and each.max() < 1e-2


def normed(lm, tokens, norm):
    x = lm.model.base_model.embed_tokens.weight[tokens].float()
    return (x * (x.square().mean(-1, keepdim=True) + norm.variance_epsilon).rsqrt() * norm.weight.float()).bfloat16()


@pytest.mark.in_turn(2)
@torch.inference_mode()
@pytest.mark.parametrize("columns", [32, 96, 416])
@pytest.mark.parametrize("vocabulary", [VOCAB_SIZE, VOCAB_SIZE + 5])  # the last panel has fewer rows
@pytest.mark.parametrize("quantization", FORMS)
def test_the_product_is_that_of_the_rounded_inputs(path, quantization, vocabulary, columns):
    lm = one_layer(quantization, hidden_size=columns, vocab_size=vocabulary)
    head, qkv = lm._fused._head.native(), lm._fused._layers[0].qkv.native()
    layer = lm.model.base_model.layers[0]
    cache = lm.new_cache(100)
    lm.forward([Rows(ids(40), cache, 0)])[0]
    for rows in (1, 2, 7, 8, 9, 16, 31):
        tokens = torch.cat([torch.tensor([20, 8]), ids(40, seed=rows)])[:rows]
        tokens[-1] = 7 if rows > 1 else 20
        logits = lm.forward([Rows(tokens, cache, rows)])[0]
        values = cache.layer(0)[1][0, :, 40:].transpose(0, 1).flatten(1)  # (T, H_kv D): not rotated, as bfloat16
        cache.rollback(40)
        x = normed(lm, tokens, lm.model.base_model.norm).double()
        check(logits, rounded(x) @ exact_weights(head).T, 1e-6)
        assert errors(logits, x @ exact_weights(head).T).median() > 4e-3  # so the limits see how inputs are rounded
        assert rows == 1 or logits[-1].abs().max() < 1e-8  # nothing but what int4 makes of weights that are zero
        x = normed(lm, tokens, layer.input_layernorm).double()
        of_values = (rounded(x) @ exact_weights(qkv).T + qkv.bias.double())[:, -values.shape[1] :]
        check(values, of_values.bfloat16(), 1e-3)


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


@pytest.mark.parametrize("form", [Int8Linear, Int4Linear])
def test_numbers_that_stand_out_leave_the_others_exact(path, form):
    """As in real inputs: few columns have numbers far above the others, and not the same ones in all rows."""
    made, x = form(numbers(48, 768, seed=1), None, Arena()), numbers(37, 768, seed=2)
    x[:, 70] = 60
    x[::3, 131] = -90
    x[5], x[6] = 0, 0
    x[6, 200] = 3  # a row of one group
    x[7, 5], x[8, 5] = 1e36, 3e-30  # nearly the largest and the smallest numbers whose groups have levels
    x[8, 32:] = 0
    matrix = made.native()
    found, exact = product(matrix, x), exact_weights(matrix)
    assert errors(found, x.double() @ exact.T).max() < 0.005  # 0.012 and more if these groups had eight bits, too
    check(found, rounded(x.double()) @ exact.T, 1e-6)
    assert not found[5].any()
    for first, last in ((0, 1), (1, 4), (2, 11), (6, 7), (30, 37)):
        assert torch.equal(product(matrix, x[first:last]), found[first:last])


@pytest.mark.parametrize("groups", [1, 2, 23, 24])
@pytest.mark.parametrize("form", [Int8Linear, Int4Linear])
def test_as_many_groups_as_can_stand_out(path, form, groups):
    """Less than a third of a row's: there is room for all of them."""
    matrix, x = form(numbers(16, 32 * groups, seed=1), None, Arena()).native(), numbers(19, 32 * groups, seed=2)
    x[:, 32 * ((groups - 1) // 3) :] *= 2.0**-20
    x[:, ::32] = x[:, ::32].sign() * 4  # the largest number of each group, or nearly nothing
    x[:, 32 * ((groups - 1) // 3) :: 32] *= 2.0**-20
    found = product(matrix, x)
    check(found, rounded(x.double()) @ exact_weights(matrix).T, 1e-6)
    if groups > 3:
        assert errors(found, x.double() @ exact_weights(matrix).T).max() < 1e-4  # all have sixteen bits


@pytest.mark.in_turn(3)
@pytest.mark.parametrize("window", [None, 70])
@pytest.mark.parametrize("quantization", [None, *FORMS])
def test_a_token_gets_the_same_bits_alone_and_among_one_to_thirty_two(path, quantization, window):
    lm = HuggingFaceLM(model("mistral", sliding_window=window), take_over=True, quantization=quantization)
    text = ids(132)
    cache = lm.new_cache(132)
    lm.forward([Rows(text[:100], cache, 0)])[0]
    alone = torch.cat([lm.forward([Rows(text[100 + t :][:1], cache, 1)])[0] for t in range(32)])
    for rows in range(1, 33):
        cache.rollback(100)
        assert torch.equal(lm.forward([Rows(text[100 : 100 + rows], cache, rows)])[0], alone[:rows])


@pytest.mark.parametrize("wrong", ["nan", "inf"])
@pytest.mark.parametrize("quantization", FORMS)
def test_what_is_no_number_stays_none(path, quantization, wrong):
    lm = one_layer(quantization)
    cache = lm.new_cache(60)
    lm.forward([Rows(ids(40), cache, 0)])[0]
    with torch.no_grad():
        lm.model.base_model.layers[0].input_layernorm.weight[3] = float(wrong)
    lm.forward([Rows(torch.tensor([5]), cache, 0)])[0]
    assert cache.layer(0)[1][0, :, 40].isnan().all()
