"""A model without layers, and over some rows, computes what a slow reference does."""

import pytest
import torch

from rapid_integrations.cache import KVCache, Rows
from rapid_integrations.errors import CacheError
from rapid_integrations.kernels.cpu import native_library
from rapid_integrations.models.causal_lm import HasParts
from rapid_integrations.models.hf import HuggingFaceLM
from tests.toys.decoders import error, ids, model, pair
from tests.toys.models import tiny_model

RUNS = [(0, 64), (192, 256), (448, 500)]
TEXT, NEW = 500, 5
LAYERS = 4


def read_by(lm):
    """Return a cache of a text, part of which another cache has, too, and further tokens."""
    token_ids = ids(TEXT + NEW)
    first = lm.new_cache(1024)
    lm.forward([Rows(token_ids[:400], first, 0)])
    cache = first.fork(390, 1024)
    assert cache.shared
    lm.forward([Rows(token_ids[390:TEXT], cache, 0)])
    return cache, token_ids[TEXT:]


def by_mask(made, runs):
    """Return the logits of the last tokens by transformers' eager attention, which sees runs alone in these rows."""
    seen = torch.ones(TEXT + NEW, TEXT + NEW, dtype=torch.bool).tril()
    hidden = torch.ones(TEXT, dtype=torch.bool)
    for begin, end in runs:
        hidden[begin:end] = False
    seen[TEXT:, :TEXT] &= ~hidden
    mask = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
    made.set_attn_implementation("eager")
    with torch.no_grad():
        return made(input_ids=ids(TEXT + NEW)[None], attention_mask=mask[None, None]).logits[0, TEXT:]


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_a_sparse_view_sees_its_rows_at_their_positions(kind):
    made = tiny_model(kind, 3, num_hidden_layers=LAYERS)
    expected = by_mask(tiny_model(kind, 3, num_hidden_layers=LAYERS), RUNS)
    lm = HuggingFaceLM(made, take_over=True)
    cache, new = read_by(lm)
    part = lm.part()
    found = part.forward([Rows(new, part.new_view(cache, RUNS), NEW)])[0]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    whole = part.forward([Rows(new, part.new_view(cache), NEW)])[0]
    assert torch.equal(whole, lm.forward([Rows(new, cache, NEW)])[0])
    assert error(found, whole) > 0.01  # the rows that are left out matter


def test_the_layers_that_are_left_read_the_rows_that_they_have():
    skipped, kept = frozenset({1, 2}), (0, 3)
    lm = HuggingFaceLM(tiny_model("llama", 3, num_hidden_layers=LAYERS), take_over=True)
    cache, new = read_by(lm)
    part = lm.part(skipped)
    found = part.forward([Rows(new, part.new_view(cache), NEW)])[0]

    short = tiny_model("llama", 3, num_hidden_layers=LAYERS)
    short.model.layers = torch.nn.ModuleList(short.model.layers[each] for each in kept)
    for slot, layer in enumerate(short.model.layers):
        layer.self_attn.layer_idx = slot
    short.config.num_hidden_layers = len(kept)
    reference = HuggingFaceLM(short)
    copied = KVCache(len(kept), 1024)
    for slot, layer in enumerate(kept):
        copied.write(slot, *cache.layer(layer))
    copied.advance(TEXT)
    torch.testing.assert_close(found, reference.forward([Rows(new, copied, NEW)])[0], atol=1e-4, rtol=1e-4)
    assert lm.part(skipped) is part and lm.part(frozenset({1})) is not part
    assert part.weight_bytes < lm.weight_bytes and part.kv_bytes_per_token * 2 == lm.kv_bytes_per_token


@pytest.mark.skipif(native_library() is None, reason="no compiler, or RAPID_NATIVE=0")
@pytest.mark.parametrize("quantization", [None, "int4"])
@pytest.mark.parametrize("skipped", [frozenset(), frozenset({1})])
def test_the_kernels_compute_what_the_operators_do(quantization, skipped):
    ours, reference = pair("llama", quantization, num_hidden_layers=3)
    reference = HuggingFaceLM(reference.model, take_over=True)
    found = []
    for lm in (ours, reference):
        cache, new = read_by(lm)
        part = lm.part(skipped)
        assert part.kernels == lm.kernels
        view = part.new_view(cache, RUNS)
        steps = [part.forward([Rows(piece, view, len(piece))])[0] for piece in new.split([1, 3, 1])]
        views = part.new_view(cache, RUNS), part.new_view(cache.fork(TEXT, 1024))
        together = part.forward([Rows(new[:1], view, 1) for view in views])
        if lm is ours:
            assert torch.equal(together[0], steps[0])  # the same bits alone and in company
        found.append(torch.cat([*steps, together[1]]))
    assert error(*found) < (0.03 if quantization is None else 0.06)


def test_only_described_models_have_parts():
    own = HuggingFaceLM(model())
    assert isinstance(own, HasParts) and not own.has_parts
    part = HuggingFaceLM(tiny_model("llama", 1), take_over=True).part()
    with pytest.raises(CacheError, match="reads views alone"):
        part.fingerprint()
    assert part.new_cache(10).layers == 2
