"""Texts that share a beginning: what a reader gets does not depend on who else has the same rows, or where they lie."""

import pytest
import torch

from rapid_integrations.cache import Rows
from rapid_integrations.kernels import cpu as native
from rapid_integrations.kernels.cpu import library
from rapid_integrations.models.hf import HuggingFaceLM
from tests.toys.decoders import FAMILIES, error, ids, model
from tests.toys.shared_beginnings import check, private

pytestmark = pytest.mark.skipif(native.native_library() is None, reason="no compiler, or RAPID_NATIVE=0")


@pytest.fixture(params=["fast", pytest.param("portable", marks=pytest.mark.process)])
def path(request, monkeypatch):
    if request.param == "portable":
        monkeypatch.setattr(library, "_outcome", library._Outcome(request.getfixturevalue("portable")))


@pytest.mark.in_a_hurry(2)
@pytest.mark.parametrize("quantization", [None, "int8", "int4"])
@pytest.mark.parametrize("kind", FAMILIES)
def test_a_shared_beginning_changes_no_bit(kind, quantization):
    check(HuggingFaceLM(model(kind, **FAMILIES[kind]), take_over=True, quantization=quantization))


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("heads", [6, 12])  # three and six to a key's
@pytest.mark.parametrize("window", [None, 1, 64, 600, 1500])
def test_windows(path, window, heads):
    check(HuggingFaceLM(model("mistral", sliding_window=window, num_attention_heads=heads), take_over=True))


@pytest.mark.in_turn(2)
@pytest.mark.long
@pytest.mark.parametrize("head_dim", [32, 64, 96, 128, 160, 192, 224, 256])
@pytest.mark.parametrize("heads", [(4, 4), (4, 1), (14, 2)])
def test_head_shapes(head_dim, heads):
    count, kv = heads
    shape = {"head_dim": head_dim, "num_attention_heads": count, "num_key_value_heads": kv}
    check(HuggingFaceLM(model("qwen2", **shape), take_over=True))


def test_the_number_of_threads_changes_nothing():
    lm = HuggingFaceLM(model(), take_over=True)
    document, before, found = lm.new_cache(1400), torch.get_num_threads(), []
    lm.forward([Rows(ids(1300), document, 0)])
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            caches = [document.fork(1300, 1400) for _ in range(6)]
            found.append(lm.forward([Rows(ids(3, seed), cache, 3) for seed, cache in enumerate(caches)]))
    finally:
        torch.set_num_threads(before)
    for others in found[1:]:
        assert all(map(torch.equal, found[0], others))


def test_a_prefill_behind_a_shared_beginning_changes_no_bit():
    lm = HuggingFaceLM(model("mistral", sliding_window=400), take_over=True)
    document = lm.new_cache(1400)
    lm.forward([Rows(ids(1400), document, 0)])
    fork = document.fork(1000, 1400)
    own = private(fork)
    assert torch.equal(lm.forward([Rows(ids(300, 1), fork, 300)])[0], lm.forward([Rows(ids(300, 1), own, 300)])[0])
    for layer in range(own.layers):
        assert all(map(torch.equal, fork.layer(layer), own.layer(layer)))


def test_another_models_rows():
    lm, other = (HuggingFaceLM(model("llama", num_key_value_heads=heads), take_over=True) for heads in (2, 3))
    document = other.new_cache(400)
    other.forward([Rows(ids(400), document, 0)])
    fork = document.fork(300, 400)
    with pytest.raises(native.decoder.CacheError, match="another model's"):
        lm.forward([Rows(ids(1), fork, 1)])


def test_operators_read_segments_within_rounding(monkeypatch):
    lm = HuggingFaceLM(model("mistral", sliding_window=400), take_over=True)
    monkeypatch.setattr(lm._fused, "_native", None)
    document = lm.new_cache(1400)
    lm.forward([Rows(ids(1400), document, 0)])
    for new in (1, 5, 200):
        fork = document.fork(1000, 1400)
        assert fork.shared
        expected = lm.forward([Rows(ids(new, 1), private(fork), new)])[0]
        assert error(lm.forward([Rows(ids(new, 1), fork, new)])[0], expected) < 0.03  # bfloat16
