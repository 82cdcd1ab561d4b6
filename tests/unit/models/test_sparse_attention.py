"""Sparse attention of prompts: the choice of blocks, the attention over them, and which models have it."""

import pytest
import torch

from rapid_integrations.cache import TILE, KVCache
from rapid_integrations.errors import ConfigurationError, UnsupportedModelError
from rapid_integrations.models import loader, sparse_attention
from rapid_integrations.models.attention import attend
from rapid_integrations.models.hf import HuggingFaceLM
from rapid_integrations.models.sparse_attention import BLOCK, DENSE_BLOCKS, STRIDE, select_blocks
from tests.toys.blocks_of_attention import drawn
from tests.toys.models import byte_tokenizer, tiny_model


def chosen_by_hand(query, key, scale, threshold):
    """Do what `select_blocks` does, one block of queries and one pair of strides after another."""
    heads, new, total = query.shape[1], query.shape[2], key.shape[2]
    group, past = heads // key.shape[1], total - new
    taken = torch.zeros(key.shape[1], new // BLOCK, total // BLOCK, dtype=torch.bool)
    for head in range(key.shape[1]):
        for block in range(past // BLOCK, total // BLOCK):
            shares = torch.zeros(block + 1, dtype=torch.float64)
            for own in range(head * group, (head + 1) * group):
                for first in range(block * BLOCK, (block + 1) * BLOCK, STRIDE):
                    rows = query[0, own, first - past : first - past + STRIDE].double().flip(0)
                    strides = key[0, head, : first + STRIDE].double().view(-1, STRIDE, key.shape[3])
                    weights = torch.softmax((strides * rows).sum(dim=(1, 2)) * scale / STRIDE, dim=0)
                    for at, weight in enumerate(weights):
                        shares[at * STRIDE // BLOCK] += weight / (group * BLOCK // STRIDE)
            found = {0, block} if block >= DENSE_BLOCKS else set(range(block + 1))
            for other in sorted(range(block + 1), key=lambda each: -shares[each]):
                if sum(shares[each] for each in found) >= threshold:
                    break
                found.add(other)
            taken[head, block - past // BLOCK, list(found)] = True
    return taken


@pytest.mark.parametrize("threshold", [0.3, 0.9])
def test_blocks_are_chosen_by_their_shares_of_antidiagonals(threshold):
    query, key, _ = drawn(3 * BLOCK, 18 * BLOCK)
    expected = chosen_by_hand(query, key, 0.2, threshold)
    assert torch.equal(select_blocks(query, key, 0.2, threshold), expected)
    assert expected[:, 0].sum() < expected[:, 0].numel() and expected[:, :, 0].all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("new", "total"), [(70, 70), (300, 1300), (1300, 1300), (90, 1200), (30, 1250), (64, 1088)])
def test_only_whole_blocks_behind_the_beginning_are_sparse(dtype, new, total):
    query, key, value = drawn(new, -(-total // BLOCK) * BLOCK, dtype=dtype)
    segments, scale = [(key[:, :, :total], value[:, :, :total])], 0.2

    def dense(queries, rows):
        return attend(queries, rows, scale, None)

    found = sparse_attention.sparse_attention(query, segments, scale, 0.2, dense)
    other = dense(query, segments)
    assert found.shape == other.shape
    differs = ~torch.isclose(found, other, rtol=0.02, atol=0.02).all(dim=-1).all(dim=-1)[0]
    first = max(-(-(total - new) // BLOCK), DENSE_BLOCKS) * BLOCK
    sparse = torch.arange(total - new, total)
    sparse = (sparse >= first) & (sparse < total // BLOCK * BLOCK)
    assert not (differs & ~sparse).any()
    assert differs[sparse].any() == sparse.any()


def test_a_sparse_cache_gives_whole_blocks_away():
    cache = KVCache(1, 512)
    rows = torch.zeros(1, 1, 200, 8)
    cache.write(0, rows, rows)
    cache.advance(200)
    assert cache.reusable(200) == 200 and cache.fork(150, 512).sparse_rows is None
    cache.sparse_rows = 192
    assert cache.reusable(200) == 192 and cache.reusable(150) == 2 * TILE
    assert cache.fork(150, 512).sparse_rows == 2 * TILE


@pytest.mark.parametrize("threshold", [0, 1, 1.5, -0.1, float("nan")])
def test_a_threshold_is_a_share(threshold):
    with pytest.raises(ConfigurationError, match="a share above 0 and below 1"):
        loader.load("no such model", sparse_prefill=threshold)


@pytest.mark.parametrize(
    ("family", "options", "reason"),
    [("mistral", {"sliding_window": 40}, "windows"), ("gpt2", {}, "transformers' own forward pass")],
)
def test_models_that_cannot_read_sparsely_are_refused(family, options, reason):
    if family == "gpt2":
        lm = HuggingFaceLM(tiny_model("llama", 0), "gpt2")  # an object of the caller's runs as it is
    else:
        lm = loader.wrap(tiny_model(family, 0, **options), byte_tokenizer(), take_over=True).lm
    with pytest.raises(UnsupportedModelError, match=f"{reason}.*Leave it out"):
        lm.read_prompts_sparsely(0.9)
    assert lm.sparse_prefill is None
