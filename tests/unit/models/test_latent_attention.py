"""Latent attention: what the cache holds, both ways to attend, trees, eight bits, and files of caches."""

import pytest
import torch

from rapid_integrations import RapidEngine
from rapid_integrations.cache import Rows
from rapid_integrations.config import CompressionConfig, SamplingParams, SpeculationConfig
from rapid_integrations.kernels import cpu as native
from rapid_integrations.models import latent_attention
from rapid_integrations.models.hf import HuggingFaceLM
from rapid_integrations.models.loader import wrap
from rapid_integrations.prompt import Prompt
from tests.toys.decoders import error, ids
from tests.toys.embedder import HashEmbedder
from tests.toys.every_family import LAYERS, tiny
from tests.toys.models import byte_tokenizer, words

SIZES = {
    **{"hidden_size": 128, "intermediate_size": 160, "kv_lora_rank": 128, "q_lora_rank": 96},
    **{"qk_nope_head_dim": 32, "qk_rope_head_dim": 32, "v_head_dim": 64, "max_position_embeddings": 4096},
}
RANK, ROTATED = SIZES["kv_lora_rank"], SIZES["qk_rope_head_dim"]
TREE = (-1, -1, 0, 0, 3, 1, 4)
KERNELS = pytest.mark.skipif(native.native_library() is None, reason="no compiler, or RAPID_NATIVE=0")


def model(dtype=torch.float32, family="minicpm3", **changes):
    made = tiny(family, 1, **(SIZES | changes))
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.mul_(0.3)
    return made.to(dtype)


def taken(dtype=torch.float32, **changes):
    lm = HuggingFaceLM(model(dtype, **changes), take_over=True)
    assert (lm._fused._native is not None) == (dtype == torch.bfloat16)
    return lm


def test_the_cache_holds_latents_and_rotated_keys_alone():
    lm = taken()
    cache = lm.new_cache(100)
    lm.forward([Rows(ids(60), cache, 1)])
    keys, latents = cache.layer(0)
    assert keys.shape == (1, 1, 60, ROTATED) and latents.shape == (1, 1, 60, RANK)
    assert lm.kv_bytes_per_token == cache.bytes_per_token == LAYERS * (RANK + ROTATED) * 4


@pytest.mark.once
@pytest.mark.parametrize("numbers", [1, 40_000, 2**26])
@pytest.mark.parametrize("most", [0, 1000])
def test_both_ways_to_attend_give_the_models_own_logits(monkeypatch, most, numbers):
    monkeypatch.setattr(latent_attention, "MOST_ABSORBED", most)
    monkeypatch.setattr(latent_attention, "_MOST_NUMBERS", numbers)
    lm, own, text = taken(), model(), ids(230)
    own.set_attn_implementation("eager")
    expected = own(input_ids=text[None]).logits[0]
    document = lm.new_cache(300)
    logits = [lm.forward([Rows(text[:150], document, 150)])[0]]
    behind = document.fork(150, 300, tile=16)
    assert behind.shared
    logits += [lm.forward([Rows(part, behind, len(part))])[0] for part in text[150:].split([79, 1])]
    assert error(torch.cat(logits), expected) < 1e-5


@pytest.mark.parametrize("most", [0, 1000])
def test_a_tree_is_read_as_its_chains_are(monkeypatch, most):
    monkeypatch.setattr(latent_attention, "MOST_ABSORBED", most)
    lm = taken()
    in_tree, alone = chains(lm)
    assert torch.allclose(in_tree, alone, atol=1e-4, rtol=1e-4)


@KERNELS
@pytest.mark.parametrize("kv_dtype", [None, "int8"])
@pytest.mark.parametrize("context", [90, 1000])
def test_kernels_give_a_tree_the_bits_of_its_chains(kv_dtype, context):
    lm = taken(torch.bfloat16)
    if kv_dtype:
        lm.store_in_eight_bits()
    in_tree, alone = chains(lm, context)
    assert torch.equal(in_tree, alone)


def chains(lm, context=90):
    """Return the logits of a tree's rows, and of the same tokens read as chains."""
    cache, tokens = lm.new_cache(context + 10), ids(len(TREE), 5)
    lm.forward([Rows(ids(context), cache, 0)])
    in_tree = lm.forward([Rows(tokens, cache, len(TREE), parents=TREE)])[0]
    alone = []
    for row in range(len(TREE)):
        path = [row]
        while TREE[path[0]] >= 0:
            path.insert(0, TREE[path[0]])
        cache.rollback(context)
        alone.append(lm.forward([Rows(tokens[path], cache, 1)])[0][0])
    return in_tree, torch.stack(alone)


@KERNELS
@pytest.mark.parametrize("kv_dtype", [None, "int8"])
@pytest.mark.parametrize("compressed", [96, None])
def test_kernels_compute_what_the_operators_compute_on_the_same_rows(kv_dtype, compressed):
    """Both read the same stored rows, so that only the rounding of what is on the way differs."""
    ours = taken(torch.bfloat16, q_lora_rank=compressed)
    exact = HuggingFaceLM(ours.transformers_copy(torch.float32), take_over=True)
    if kv_dtype:
        ours.store_in_eight_bits()
        exact.store_in_eight_bits()
        exact._fused._balance = ours._fused._balance
    cache, same = ours.new_cache(800), exact.new_cache(800)
    ours.forward([Rows(ids(700), cache, 0)])
    for layer in range(cache.layers):
        rows = cache.layer(layer)
        same.write(layer, *(rows if kv_dtype else (each.float() for each in rows)))
    same.advance(700)
    found, expected = (lm.forward([Rows(ids(8, 3), own, 8)])[0] for lm, own in ((ours, cache), (exact, same)))
    assert error(found, expected) < 0.015


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=KERNELS)])
def test_eight_bits_change_logits_little(dtype):
    whole, lm, text = taken(dtype), taken(dtype), ids(300)
    lm.store_in_eight_bits()
    caches = [each.new_cache(300) for each in (whole, lm)]
    for each, cache in zip((whole, lm), caches, strict=True):
        each.forward([Rows(text[:290], cache, 0)])
    expected, found = (
        each.forward([Rows(text[290:], cache, 10)])[0] for each, cache in zip((whole, lm), caches, strict=True)
    )
    assert 1e-4 < error(found, expected) < 0.03
    assert lm.kv_bytes_per_token == caches[1].bytes_per_token == LAYERS * (RANK + ROTATED + 8)


def test_keys_are_moved_to_other_positions():
    lm, text = taken(), ids(40)
    first, later = lm.new_cache(50), lm.new_cache(50)
    lm.forward([Rows(text, first, 0)])
    lm.forward([Rows(torch.cat([ids(7, 9), text]), later, 0)])
    keys, _ = first.layer(0)
    assert lm.moves_keys and torch.allclose(lm.shifted(0, keys, 7), later.layer(0)[0][:, :, 7:], atol=1e-4)


def test_the_kernels_say_which_widths_they_serve():
    for changes in ({"kv_lora_rank": 96}, {"qk_rope_head_dim": 16}, {"v_head_dim": 20}, {"qk_nope_head_dim": 40}):
        lm = HuggingFaceLM(model(torch.bfloat16, **changes), take_over=True)
        assert lm._fused._native is None and lm.kernels.startswith("none (")


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("kind", [torch.float32, pytest.param(torch.bfloat16, marks=KERNELS)])
@pytest.mark.parametrize("kv_dtype", [None, "int8"])
def test_drafts_shared_documents_and_files_change_no_answer(tmp_path, kind, kv_dtype):
    def engine(**options):
        loaded = wrap(model(kind, "deepseek_v2", moe_intermediate_size=32), byte_tokenizer(), take_over=True)
        if kv_dtype:
            loaded.lm.store_in_eight_bits()
        return RapidEngine(
            loaded,
            embedder=HashEmbedder(),
            compression=CompressionConfig(chunk_tokens=64, min_tokens=64, min_chunks=2),
            sampling=SamplingParams(max_new_tokens=8),
            **options,
        )

    document = words(1, 120)
    questions = [Prompt.from_context(document, each) for each in ("which words?", "how many?")]
    plain, drafted = (SpeculationConfig(law="target", proposer=each) for each in ("none", "retrieval_tree"))
    with engine(prefix_cache_bytes=0) as alone:
        expected = [alone.generate(each, speculation=plain).token_ids for each in questions]
    with engine(prefix_cache_dir=tmp_path) as first:
        assert first.generate(questions[0], speculation=drafted).token_ids == expected[0]
    with engine(prefix_cache_dir=tmp_path) as later:
        found = later.generate(questions[1], speculation=drafted)
        assert found.token_ids == expected[1] and found.stats.cached_prompt_tokens > len(document)


@KERNELS
def test_a_model_without_some_layers_reads_views_of_the_cache():
    lm, text = taken(torch.bfloat16), ids(700)
    cache = lm.new_cache(800)
    lm.forward([Rows(text, cache, 0)])
    part = lm.part(frozenset({1}))
    found = part.forward([Rows(ids(3, 2), part.new_view(cache), 3)])[0]
    own = part.new_cache(800)
    part.forward([Rows(text, own, 0)])
    for layer in (0, 1):  # the first one holds what the whole model's has; the second read other rows
        assert torch.equal(own.layer(layer)[0], cache.layer(0)[0]) == (layer == 0)
    assert found.shape == (3, lm.vocab_size) and found.isfinite().all()
    whole = lm.part()
    assert torch.equal(
        whole.forward([Rows(ids(3, 2), whole.new_view(cache), 3)])[0], lm.forward([Rows(ids(3, 2), cache, 3)])[0]
    )
