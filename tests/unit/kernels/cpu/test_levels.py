"""Attention over rows in eight bits: exact for the numbers they stand for, and the same bits in any company."""

import pytest
import torch

from rapid_integrations.cache import Rows
from rapid_integrations.cache.levels import quantised, restored
from rapid_integrations.errors import CacheError
from rapid_integrations.kernels import cpu as native
from rapid_integrations.kernels.cpu import library, prefill
from rapid_integrations.kernels.layers import AttentionKind
from rapid_integrations.models.hf import HuggingFaceLM
from rapid_integrations.sampling.trees import path_to
from tests.toys.decoders import FAMILIES, error, ids, in_eight_bits, model, read
from tests.toys.shared_beginnings import check

pytestmark = pytest.mark.skipif(native.native_library() is None, reason="no compiler, or RAPID_NATIVE=0")
ROUNDED = 0.0019  # what a result in bfloat16 is off by


@pytest.fixture(params=["fast", pytest.param("portable", marks=pytest.mark.process)])
def path(request, monkeypatch):
    if request.param == "portable":
        monkeypatch.setattr(library, "_outcome", library._Outcome(request.getfixturevalue("portable")))


def attention(query, keys, values, scale, window=None, kind=None):
    """The same in float64, of rows in eight bits."""
    keys, values = (restored(each, torch.float64)[0] for each in (keys, values))
    _, heads, new, width = query.shape
    scores = torch.einsum("hgtd,hld->hgtl", query[0].double().view(len(keys), -1, new, width), keys) * scale
    if kind is not None and kind.softcap:
        scores = kind.softcap * torch.tanh(scores / kind.softcap)
    at, seen_at = torch.arange(keys.shape[1] - new, keys.shape[1])[:, None], torch.arange(keys.shape[1])
    seen = (seen_at <= at) & (seen_at > at - (window or 10**9))
    weights = scores.masked_fill(~seen, float("-inf")).softmax(-1)
    return (weights @ values[:, None]).view(heads, new, width).transpose(0, 1)[None]


@pytest.mark.skipif(not native.native_library() or not native.native_library().rapid_fast_path(), reason="no fast path")
@pytest.mark.parametrize("width", [32, 64, 96, 128, 160, 192, 224, 256])
@pytest.mark.parametrize(("new", "total", "window"), [(1, 64, None), (5, 300, None), (100, 700, 70), (65, 65, None)])
def test_attention_is_exact_for_the_stored_numbers(width, new, total, window):
    torch.manual_seed(width + total)
    query = torch.randn(1, 6, new, width).bfloat16()
    keys, values = torch.randn(2, 1, 2, total, width).bfloat16()
    keys[..., 3] *= 8
    for kind in (AttentionKind(), AttentionKind(softcap=5.0)):
        given = quantised(keys), quantised(values)
        assert prefill.serves_attention(query, *given)
        found = prefill.attend(query, [given], width**-0.5, window, kind)
        assert error(found.double(), attention(query, *given, width**-0.5, window, kind)) < ROUNDED


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("kind", FAMILIES)
def test_a_step_stores_the_rows_that_python_would(kind, path):
    """Of the first layer, whose rows depend on a token and its position alone."""
    whole, half = HuggingFaceLM(model(kind, **FAMILIES[kind]), take_over=True), in_eight_bits(kind, **FAMILIES[kind])
    caches = [lm.new_cache(200) for lm in (whole, half)]
    for lm, cache in zip((whole, half), caches, strict=True):
        lm.forward([Rows(ids(80), cache, 0)])
        lm.forward([Rows(ids(9, 1), cache, 9)])
    (keys, values), (stored_keys, stored_values) = (cache.layer(0) for cache in caches)
    factors = half._fused._balance[0][-keys.shape[1] :, None]
    assert torch.equal(stored_keys, quantised((keys * factors).bfloat16()))
    assert torch.equal(stored_values, quantised(values))


@pytest.mark.in_a_hurry(2)
@pytest.mark.parametrize("kind", FAMILIES)
def test_a_shared_beginning_changes_no_bit(kind):
    check(in_eight_bits(kind, **FAMILIES[kind]))


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("window", [None, 70, 600])
def test_windows_on_every_path(path, window):
    check(in_eight_bits("mistral", sliding_window=window))


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("head_dim", [32, 96, 256])
@pytest.mark.parametrize("heads", [(4, 4), (14, 2)])
def test_a_token_gets_the_same_bits_alone_and_among_others(head_dim, heads):
    count, kv = heads
    lm = in_eight_bits("qwen2", head_dim=head_dim, num_attention_heads=count, num_key_value_heads=kv)
    text = ids(560)
    alone = read(lm, text, 490, *[1] * 70)
    for lengths in ([32, 32, 6], [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 5], [17] * 4 + [2]):
        assert torch.equal(read(lm, text, 490, *lengths), alone)


def test_every_path_computes_what_operators_do_within_rounding(path):
    lm = in_eight_bits("qwen2")
    text = ids(400)
    found = read(lm, text, 300, 1, 5, 32, 32, 30)
    lm._fused._native = None
    assert error(found[300:], read(lm, text, 300, 1, 5, 32, 32, 30)[300:]) < 0.03  # bfloat16


@pytest.mark.parametrize("past", [5, 63, 64, 500, 515])
def test_a_tree_has_the_bits_of_its_paths(path, past):
    lm = in_eight_bits()
    parents, tokens = (-1, 0, 1, 0, 3, -1, 5, 2), ids(8, 2)
    cache = lm.new_cache(600)
    lm.forward([Rows(ids(past), cache, 0)])
    (tree,) = lm.forward([Rows(tokens, cache, 8, parents=parents)])
    cache.rollback(past)
    for leaf in (4, 6, 7):
        rows = path_to(parents, leaf)
        (chain,) = lm.forward([Rows(tokens[rows], cache, len(rows))])
        assert torch.equal(tree[rows], chain)
        cache.rollback(past)


def test_what_lies_behind_the_text_is_never_read(path):
    lm = in_eight_bits()
    text = ids(300)
    clean = read(lm, text, 250, 10, 30, 10)
    cache = lm.new_cache(400)
    lm.forward([Rows(text[:250], cache, 0)])
    buffers = cache.tail(0)
    with torch.inference_mode():
        for buffer in (*buffers.keys, *buffers.values):
            buffer[:, :, 250:] = -1  # scales that are NaN
    for begin, end in ((250, 260), (260, 290), (290, 300)):
        assert torch.equal(lm.forward([Rows(text[begin:end], cache, end - begin)])[0], clean[begin:end])


def test_a_row_without_numbers_is_found(path):
    lm = in_eight_bits()
    cache = lm.new_cache(400)
    lm.forward([Rows(ids(250), cache, 0)])
    with torch.inference_mode():
        cache.tail(0).values[0][:, :, 7, -4:] = -1
    with pytest.raises(ArithmeticError):
        lm.forward([Rows(ids(3), cache, 3)])


def test_rows_of_another_kind_are_refused():
    whole, half = HuggingFaceLM(model(), take_over=True), in_eight_bits()
    for lm, other in ((whole, half), (half, whole)):
        cache = other.new_cache(100)
        other.forward([Rows(ids(50), cache, 0)])
        with pytest.raises(CacheError, match="another model's"):
            lm.forward([Rows(ids(1), cache, 1)])
