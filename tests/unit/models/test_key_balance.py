"""Factors that even out the dimensions of keys before they are stored in eight bits."""

import pytest
import torch

from rapid_integrations.cache import Rows
from rapid_integrations.errors import ConfigurationError, UnsupportedModelError
from rapid_integrations.kernels.layers import Rope
from rapid_integrations.models import loader
from rapid_integrations.models.hf import HuggingFaceLM
from rapid_integrations.models.key_balance import PROBE_TOKENS, balance_of, probe_ids, with_queries
from tests.toys.decoders import error, ids
from tests.toys.models import byte_tokenizer, tiny_model


@pytest.mark.parametrize("rope", [Rope(pairs=4), Rope(pairs=4, interleaved=True), Rope(pairs=2), Rope()])
def test_pairs_have_one_factor_and_every_dimension_a_similar_size(rope):
    size = torch.tensor([1.0, 300, 2, 0, 5, 0.01, 7, 40])
    keys = torch.randn(1, 3, PROBE_TOKENS, 8, generator=torch.Generator().manual_seed(0)) * size
    factors = balance_of(keys, rope)
    assert factors.shape == (3, 8) and torch.equal(factors.log2(), factors.log2().round())
    if rope.pairs:
        first = factors[:, 0 : 2 * rope.pairs : 2] if rope.interleaved else factors[:, : rope.pairs]
        second = factors[:, 1 : 2 * rope.pairs : 2] if rope.interleaved else factors[:, rope.pairs : 2 * rope.pairs]
        assert torch.equal(first, second)
    most = keys[0, :, 8:].abs().amax(1) / factors
    assert (most < 1.5).all() and ((most > 0.7).sum(1) >= 4).all()


def test_queries_undo_what_keys_are_divided_by():
    factors = with_queries(torch.tensor([[1.0, 2], [4, 8]]), 4)
    assert factors.tolist() == [[1, 2], [1, 2], [4, 8], [4, 8], [1, 0.5], [0.25, 0.125]]


def test_the_text_is_the_same_in_every_process():
    found = probe_ids(100, torch.device("cpu"))
    assert found.shape == (PROBE_TOKENS,) and found[:3].tolist() == [61, 26, 87]
    assert probe_ids(1, torch.device("cpu")).max() == 0


def test_large_biases_of_keys_cost_little():
    made = tiny_model("qwen2", 1)
    with torch.no_grad():
        for layer in made.model.layers:
            layer.self_attn.k_proj.bias.zero_()
            layer.self_attn.k_proj.bias[1::8] = 60
    exact, balanced, plain = (HuggingFaceLM(made, take_over=True) for _ in range(3))
    balanced.store_in_eight_bits()
    plain.store_in_eight_bits()
    plain._fused._balance = [torch.ones_like(each) for each in plain._fused._balance]
    if plain._fused._native is not None:
        plain._fused._native.store_in_eight_bits(plain._fused._balance)
    text = ids(100)
    expected = exact.forward([Rows(text, exact.new_cache(100), 100)])[0]
    off = [error(lm.forward([Rows(text, lm.new_cache(100), 100)])[0], expected) for lm in (balanced, plain)]
    assert off[0] < off[1] / 2


def test_bytes_and_fingerprint_say_how_rows_are_stored():
    lm = HuggingFaceLM(tiny_model("llama", 1), take_over=True)
    before, whole = lm.fingerprint(), lm.kv_bytes_per_token
    assert lm.kv_dtype is None
    lm.store_in_eight_bits()
    cache = lm.new_cache(100)
    lm.forward([Rows(ids(10), cache, 0)])
    assert lm.kv_dtype == cache.kv_dtype == "int8"
    assert lm.kv_bytes_per_token == cache.bytes_per_token < whole / 2
    assert lm.fingerprint() != before


def test_models_that_transformers_runs_are_refused():
    lm = loader.wrap(tiny_model("llama", 1), byte_tokenizer()).lm
    with pytest.raises(UnsupportedModelError, match="runs transformers' own forward pass"):
        lm.store_in_eight_bits()


def test_models_on_other_devices_are_refused():
    lm = HuggingFaceLM(tiny_model("llama", 1), take_over=True)
    lm.device = torch.device("meta")
    with pytest.raises(UnsupportedModelError, match="this model runs on meta"):
        lm.store_in_eight_bits()
    assert lm.kv_dtype is None


def test_another_dtype_is_refused_before_anything_is_loaded():
    with pytest.raises(ConfigurationError, match="kv_dtype='int4': use 'int8' or None"):
        loader.load("no such model", kv_dtype="int4")
