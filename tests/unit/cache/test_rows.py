"""One pass for several texts: every one gets what it gets alone, whoever computes."""

import pytest
import torch

from rapid_integrations.cache import Rows
from rapid_integrations.kernels.cpu import native_library
from rapid_integrations.models import attention
from rapid_integrations.models.hf import HuggingFaceLM
from tests.toys.decoders import model
from tests.toys.models import VOCAB_SIZE, tiny_model

WIDE = {
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 32,
}
TEXTS = [  # tokens read before, new tokens, rows of logits that are wanted
    (1100, 1, 1),
    (40, 7, 7),
    (3, 2, 0),
    (513, 5, 2),
    (40, 1, 1),
]


def ids(count, seed):
    return torch.randint(0, VOCAB_SIZE, (count,), generator=torch.Generator().manual_seed(seed))


def begun(lm, seed, before):
    cache = lm.new_cache(before + 16)
    lm.forward([Rows(ids(before, seed), cache, 0)])
    return cache


def alone_and_together(lm, texts=TEXTS):
    alone, together = [], []
    for seed, (before, new, keep) in enumerate(texts):
        cache = begun(lm, seed, before)
        alone.append((lm.forward([Rows(ids(new, 100 + seed), cache, keep)])[0], cache))
    rows = [Rows(ids(new, 100 + seed), begun(lm, seed, before), keep) for seed, (before, new, keep) in enumerate(texts)]
    for each, logits in zip(rows, lm.forward(rows), strict=True):
        assert logits.shape == (each.keep, lm.vocab_size) and logits.dtype == torch.float32
        together.append((logits, each.cache))
    return alone, together


@pytest.mark.in_turn(3)
@pytest.mark.skipif(native_library() is None, reason="no compiler, or RAPID_NATIVE=0")
@pytest.mark.parametrize("quantization", [None, "int8", "int4"])
@pytest.mark.parametrize("kind", ["llama", "qwen3", "mistral"])  # mistral: with a window
def test_a_token_has_the_same_bits_alone_and_in_company(kind, quantization):
    lm = HuggingFaceLM(tiny_model(kind, 1, **WIDE).bfloat16(), take_over=True, quantization=quantization)
    assert lm._fused._native is not None and lm.passes_together
    for (logits, cache), (found, other) in zip(*alone_and_together(lm), strict=True):
        assert torch.equal(found, logits) and other.length == cache.length
        for index in range(cache.layers):
            assert all(map(torch.equal, other.layer(index), cache.layer(index)))


@pytest.mark.in_turn(3)
@pytest.mark.skipif(native_library() is None, reason="no compiler, or RAPID_NATIVE=0")
@pytest.mark.parametrize("quantization", [None, "int8", "int4"])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "mistral"])
def test_rows_beyond_those_of_one_step_have_the_same_bits(kind, quantization):
    """Target and drafter read a draft of up to 31 tokens together: each in rows of a step, both in more."""
    shape = {**WIDE, "hidden_size": 576, "intermediate_size": 1536}  # so wide that PyTorch's products would differ
    lm = HuggingFaceLM(model(kind, **shape), take_over=True, quantization=quantization)
    texts = [(1100, 20, 20), (40, 32, 32), (3, 13, 13), (513, 17, 17), (40, 1, 1)]
    for (logits, cache), (found, other) in zip(*alone_and_together(lm, texts), strict=True):
        assert torch.equal(found, logits) and other.length == cache.length
        for index in range(cache.layers):
            assert all(map(torch.equal, other.layer(index), cache.layer(index)))


@pytest.mark.in_turn(3)
@pytest.mark.skipif(native_library() is None, reason="no compiler, or RAPID_NATIVE=0")
@pytest.mark.parametrize("quantization", [None, "int8", "int4"])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "mistral"])
def test_a_piece_of_a_prompt_has_the_same_bits_beside_pieces_of_others(kind, quantization):
    shape = {**WIDE, "hidden_size": 576, "intermediate_size": 1536}  # so wide that PyTorch's products would differ
    lm = HuggingFaceLM(model(kind, **shape), take_over=True, quantization=quantization)
    assert lm.prompts_together
    pieces = [(30, 1), (10, 33), (100, 200), (5, 7)]  # tokens before, new tokens
    alone = [begun(lm, seed, before) for seed, (before, _) in enumerate(pieces)]
    together = [begun(lm, seed, before) for seed, (before, _) in enumerate(pieces)]
    rows = [ids(new, 100 + seed) for seed, (_, new) in enumerate(pieces)]
    for cache, own in zip(alone, rows, strict=True):
        lm.forward([Rows(own, cache, 0, of_prompt=True)])
    lm.forward([Rows(own, cache, 0, of_prompt=True) for cache, own in zip(together, rows, strict=True)])
    for cache, other in zip(alone, together, strict=True):
        assert cache.length == other.length
        for index in range(cache.layers):
            assert all(map(torch.equal, other.layer(index), cache.layer(index)))


@pytest.mark.once
@pytest.mark.parametrize("take_over", [True, False])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "mistral"])
def test_operators_and_transformers_give_the_same_alone_and_in_company(kind, take_over):
    lm = HuggingFaceLM(tiny_model(kind, 1), take_over=take_over)
    assert lm.passes_together == take_over
    for (logits, cache), (found, other) in zip(*alone_and_together(lm), strict=True):
        assert torch.allclose(found, logits, rtol=1e-4, atol=1e-4) and other.length == cache.length


def test_texts_that_begin_share_a_pass_with_texts_that_go_on():
    """A cache that was never written is no reason to leave anybody out."""
    lm = HuggingFaceLM(tiny_model("llama", 1), take_over=True)
    running, fresh = begun(lm, 0, 50), lm.new_cache(64)
    found = lm.forward([Rows(ids(2, 1), running, 2), Rows(ids(30, 2), fresh, 1)])
    expected = [
        lm.forward([Rows(ids(2, 1), begun(lm, 0, 50), 2)])[0],
        lm.forward([Rows(ids(30, 2), lm.new_cache(64), 1)])[0],
    ]
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(found, expected, strict=True))
    assert (running.length, fresh.length) == (52, 30)


def test_nobody_asks_for_logits():
    lm = HuggingFaceLM(tiny_model("llama", 1), take_over=True)
    rows = [Rows(ids(3, seed), begun(lm, seed, 20), 0) for seed in range(2)]
    assert [found.shape for found in lm.forward(rows)] == [(0, lm.vocab_size)] * 2
    assert [each.cache.length for each in rows] == [23, 23]


@pytest.mark.once
@pytest.mark.parametrize("take_over", [True, False])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "mistral"])
def test_operators_and_transformers_read_shared_rows_where_they_lie(kind, take_over):
    lm = HuggingFaceLM(tiny_model(kind, 1), take_over=take_over)
    assert lm.kv_bytes_per_token == begun(lm, 0, 5).bytes_per_token
    whole, document = ids(700, 0), lm.new_cache(700)
    expected = lm.forward([Rows(whole, document, 700)])[0]
    texts = [(500, 1), (500, 5), (300, 90), (640, 3)]  # tokens that are shared, new tokens
    rows = [Rows(whole[shared : shared + new], document.fork(shared, 700), new) for shared, new in texts]
    assert all(each.cache.shared for each in rows)
    for (shared, new), found in zip(texts, lm.forward(rows), strict=True):
        assert torch.allclose(found, expected[shared : shared + new], rtol=1e-4, atol=1e-4)
    assert not lm._host.joins_segments


@pytest.mark.parametrize("part", [0, 1])
def test_a_model_that_computes_with_the_keys_of_its_cache_gets_all_of_them(part, monkeypatch):
    lm = HuggingFaceLM(tiny_model("llama", 1))
    with_prefix = attention.with_prefix

    def changed(segments):
        rows = list(with_prefix(segments))
        rows[part] = rows[part] + 0
        return tuple(rows)

    document = lm.new_cache(400)
    expected = lm.forward([Rows(ids(400, 0), document, 400)])[0]
    monkeypatch.setattr(attention, "with_prefix", changed)
    for at, new in ((300, 1), (301, 20)):
        fork = document.fork(at, 400)
        assert torch.allclose(
            lm.forward([Rows(ids(400, 0)[at : at + new], fork, new)])[0], expected[at : at + new], atol=1e-4
        )
        assert fork.length == at + new
    assert lm._host.joins_segments


@pytest.mark.once
@pytest.mark.skipif(native_library() is None, reason="no compiler, or RAPID_NATIVE=0")
@pytest.mark.parametrize("quantization", [None, "int8", "int4"])
@pytest.mark.parametrize("rest", [20, 32, 100])
def test_a_prompts_rows_do_not_depend_on_what_was_cached(quantization, rest):
    lm = HuggingFaceLM(tiny_model("llama", 1).bfloat16(), take_over=True, quantization=quantization)
    text = ids(300, 1)
    whole, parts = lm.new_cache(320), lm.new_cache(320)
    lm.forward([Rows(text, whole, 0, of_prompt=True)])
    for part in (text[:-rest], text[-rest:]):
        lm.forward([Rows(part, parts, 0, of_prompt=True)])
    for layer in range(whole.layers):
        for found, wanted in zip(parts.layer(layer), whole.layer(layer), strict=True):
            assert torch.equal(found, wanted)


# --- trees ------------------------------------------------------------

TREE = (-1, 0, 1, 2, 0, 1, 5, 4, -1, 8)  # five leaves; the second one's rows do not lie together
DEEP = [3, 6, 7, 9]  # rows at the leaves, and one within


def tokens_on_path(tokens, parents, row):
    path = []
    while row >= 0:
        path.append(row)
        row = parents[row]
    return tokens[path[::-1]]


def tree_and_chains(lm, before, company=()):
    """Return for each row of a tree its logits there and at the end of the chain that leads to it, and both caches."""
    tokens, cache = ids(len(TREE), 7), begun(lm, 0, before)
    others = [Rows(ids(new, 100 + seed), begun(lm, seed, past), new) for seed, (past, new) in enumerate(company, 1)]
    found = lm.forward([*others, Rows(tokens, cache, len(TREE), parents=TREE)])[-1]
    for row in range(len(TREE)):
        chain, alone = tokens_on_path(tokens, TREE, row), begun(lm, 0, before)
        yield row, found[row], lm.forward([Rows(chain, alone, 1)])[0][0], cache, alone


@pytest.mark.in_turn(2)
@pytest.mark.skipif(native_library() is None, reason="no compiler, or RAPID_NATIVE=0")
@pytest.mark.parametrize("before", [3, 62, 509, 1100])  # the tree's rows cross a tile, or a chunk
@pytest.mark.parametrize("kind", ["llama", "qwen3", "mistral"])
def test_a_token_has_the_same_bits_in_a_tree(kind, before):
    lm = HuggingFaceLM(tiny_model(kind, 1, **WIDE).bfloat16(), take_over=True, quantization="int8")
    assert lm._fused._native is not None and lm.reads_trees
    for company in ((), [(40, 3), (700, 2)]):
        for row, in_tree, alone, _, _ in tree_and_chains(lm, before, company):
            assert torch.equal(in_tree, alone), row


@pytest.mark.skipif(native_library() is None, reason="no compiler, or RAPID_NATIVE=0")
def test_trees_of_texts_with_a_shared_beginning_have_the_same_bits_in_one_pass():
    lm = HuggingFaceLM(tiny_model("llama", 1, **WIDE).bfloat16(), take_over=True)
    document = begun(lm, 0, 1500)
    tokens, more = ids(len(TREE), 7), ids(90, 9)
    pair = [document.fork(1500, 1600), document.fork(1400, 1600)]
    lm.forward([Rows(more, pair[1], 0)])
    lengths = [each.length for each in pair]
    rows = [Rows(tokens, each, len(TREE), parents=TREE) for each in pair]
    for each, length, found in zip(pair, lengths, lm.forward(rows), strict=True):
        for row in range(len(TREE)):
            each.rollback(length)
            assert torch.equal(lm.forward([Rows(tokens_on_path(tokens, TREE, row), each, 1)])[0][0], found[row])


@pytest.mark.once
@pytest.mark.parametrize("take_over", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "mistral"])
def test_operators_and_transformers_read_trees(kind, take_over, dtype, monkeypatch):
    monkeypatch.setenv("RAPID_NATIVE", "0")
    lm = HuggingFaceLM(tiny_model(kind, 1).to(dtype), take_over=take_over)
    assert lm.reads_trees
    for before in (20, 200):
        for row, in_tree, alone, _, _ in tree_and_chains(lm, before):
            assert torch.allclose(in_tree, alone, atol=1e-4 if dtype == torch.float32 else 0.05), row


@pytest.mark.once
@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("path", [(0, 1, 5, 6), (8, 9), (0, 1, 2), (0, 4, 7), ()])
def test_the_rows_of_a_chosen_path_are_moved_together(path, native):
    if native and native_library() is None:
        pytest.skip("no compiler, or RAPID_NATIVE=0")
    made = tiny_model("llama", 1, **WIDE)
    lm = HuggingFaceLM(made.bfloat16() if native else made, take_over=True)
    tokens, cache, alone = ids(len(TREE), 7), begun(lm, 0, 100), begun(lm, 0, 100)
    lm.forward([Rows(tokens, cache, 0, parents=TREE)])
    cache.keep(100, path)
    if path:
        lm.forward([Rows(tokens[list(path)], alone, 0)])
    assert cache.length == alone.length == 100 + len(path)
    for layer in range(cache.layers):
        for kept, wanted in zip(cache.layer(layer), alone.layer(layer), strict=True):
            assert torch.equal(kept, wanted) if native else torch.allclose(kept, wanted, rtol=1e-4, atol=1e-4)
