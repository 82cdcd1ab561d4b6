"""Indexed attention: which keys rows choose, what the cache holds, trees, eight bits, files, and what is compared."""

import functools
from dataclasses import replace

import pytest
import torch
from transformers import DynamicCache

from rapid_integrations import RapidEngine
from rapid_integrations.cache import Rows
from rapid_integrations.config import CompressionConfig, SamplingParams, SpeculationConfig
from rapid_integrations.errors import UnsupportedModelError
from rapid_integrations.kernels import cpu as native
from rapid_integrations.models import indexer, latent_attention
from rapid_integrations.models.families import deepseek, latent
from rapid_integrations.models.hf import HuggingFaceLM
from rapid_integrations.models.loader import wrap
from rapid_integrations.prompt import Prompt
from tests.toys import shared_beginnings
from tests.toys.decoders import error, ids
from tests.toys.embedder import HashEmbedder
from tests.toys.every_family import tiny
from tests.toys.models import byte_tokenizer, words

CHOSEN, DIM, LAYERS, FULL = 70, 64, 4, 2  # LAYERS of which FULL have an indexer
SIZES = {
    **{"hidden_size": 128, "intermediate_size": 160, "num_hidden_layers": LAYERS, "kv_lora_rank": 64},
    "q_lora_rank": 96,
    **{"qk_nope_head_dim": 32, "qk_rope_head_dim": 32, "v_head_dim": 32, "max_position_embeddings": 4096},
    **{"moe_intermediate_size": 32, "index_topk": CHOSEN, "index_n_heads": 6, "index_head_dim": DIM},
}
RANK, ROTATED = SIZES["kv_lora_rank"], SIZES["qk_rope_head_dim"]
TREE = (-1, -1, 0, 0, 3, 1, 4)
FAMILIES = ("deepseek_v32", "glm_moe_dsa")
KERNELS = pytest.mark.skipif(native.native_library() is None, reason="no compiler, or RAPID_NATIVE=0")


def model(dtype=torch.float32, family="glm_moe_dsa", **changes):
    made = tiny(family, 1, **(SIZES | changes))
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.mul_(0.3)
    return made.to(dtype)


def taken(dtype=torch.float32, family="glm_moe_dsa", **changes):
    lm = HuggingFaceLM(model(dtype, family, **changes), take_over=True)
    assert (lm._fused._native is not None) == (dtype == torch.bfloat16)
    return lm


def test_the_cache_holds_the_keys_of_indexers_behind_those_of_all_layers():
    lm = taken()
    cache = lm.new_cache(100)
    lm.forward([Rows(ids(60), cache, 1)])
    assert cache.layers == LAYERS + FULL
    for layer in range(LAYERS):
        assert [each.shape for each in cache.layer(layer)] == [(1, 1, 60, ROTATED), (1, 1, 60, RANK)]
    for layer in range(LAYERS, LAYERS + FULL):
        assert [each.shape for each in cache.layer(layer)] == [(1, 1, 60, DIM // 2)] * 2
    assert lm.kv_bytes_per_token == cache.bytes_per_token == (LAYERS * (RANK + ROTATED) + FULL * DIM) * 4
    lm.store_in_eight_bits()
    cache = lm.new_cache(100)
    lm.forward([Rows(ids(60), cache, 1)])
    assert lm.kv_bytes_per_token == cache.bytes_per_token == LAYERS * (RANK + ROTATED + 8) + FULL * (DIM + 8)


@torch.inference_mode()
def token_by_token(own, text):
    """Return the logits of a model that reads a text in transformers, where no choice depends on how much is read."""
    own.set_attn_implementation("eager")
    cache = DynamicCache(config=own.config)
    return torch.cat([own(input_ids=token[None, None], cache=cache, use_cache=True).logits[0] for token in text])


@functools.cache
def by_transformers(family, chosen):
    """Return the logits of 230 tokens, whose rows see at most so many keys."""
    return token_by_token(model(family=family, index_topk=chosen), ids(230))


@pytest.mark.once
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("most", "hidden"), [(128, 0), (0, 0), (0, 3), (0, 1000)])
@pytest.mark.parametrize("numbers", [1, 40_000, 2**25])
@pytest.mark.long
def test_pieces_of_any_length_give_the_models_own_logits(monkeypatch, family, numbers, most, hidden):
    """Also behind a beginning that is shared, and where a piece begins before the first row that chooses."""
    monkeypatch.setattr(indexer, "_MOST_NUMBERS", numbers)
    for name, value in (("_MOST_GATHERED", numbers), ("MOST_ABSORBED", most), ("_HIDDEN", hidden)):
        monkeypatch.setattr(latent_attention, name, value)
    lm, text = taken(family=family), ids(230)
    expected = by_transformers(family, CHOSEN)
    assert error(by_transformers(family, 1000)[CHOSEN:], expected[CHOSEN:]) > 0.01  # or this would say nothing
    document = lm.new_cache(300)
    logits = [lm.forward([Rows(part, document, len(part))])[0] for part in text[:150].split([65, 50, 35])]
    behind = document.fork(150, 300, tile=16)
    assert behind.shared
    logits += [lm.forward([Rows(part, behind, len(part))])[0] for part in text[150:].split([79, 1])]
    assert error(torch.cat(logits), expected) < 1e-5
    whole = lm.forward([Rows(text, lm.new_cache(300), 230)])[0]
    assert error(whole, expected) < 1e-5


def chains(lm, context):
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


@pytest.mark.in_a_hurry(1)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("context", [CHOSEN - 2, 300])  # with the former, only some rows of the tree choose
def test_a_row_of_a_tree_chooses_among_its_ancestors(family, context):
    in_tree, alone = chains(taken(family=family), context)
    assert torch.allclose(in_tree, alone, atol=1e-4, rtol=1e-4)


@pytest.mark.in_a_hurry(1)
@KERNELS
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kv_dtype", [None, "int8"])
@pytest.mark.parametrize("context", [CHOSEN - 2, 90, 1000])
def test_kernels_give_a_tree_the_bits_of_its_chains(family, kv_dtype, context):
    lm = taken(torch.bfloat16, family)
    if kv_dtype:
        lm.store_in_eight_bits()
    in_tree, alone = chains(lm, context)
    assert torch.equal(in_tree, alone)


@KERNELS
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kv_dtype", [None, "int8"])
@pytest.mark.parametrize("chosen", [CHOSEN, 600, 1000])
@pytest.mark.long
def test_kernels_compute_what_the_operators_compute_on_the_same_rows(family, kv_dtype, chosen):
    """Both read the same stored rows. Rounding makes rows take other experts and keys, and the operators' more so.

    Rows that see all keys, or others, differ by 0.25 and more where few are chosen.
    """
    ours = taken(torch.bfloat16, family, index_topk=chosen)
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
    found, expected = (lm.forward([Rows(ids(16, 3), own, 16)])[0] for lm, own in ((ours, cache), (exact, same)))
    cache.rollback(700)
    rounded = ours._fused._read([Rows(ids(16, 3), cache, 16)])[0]
    by_kernels, by_operators = (
        ((each - expected).norm(dim=1) / expected.norm(dim=1)).median().item() for each in (found, rounded)
    )
    assert by_kernels < min(0.1, by_operators + 0.015)


@KERNELS
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kv_dtype", [None, "int8"])
@pytest.mark.long
def test_threads_and_company_change_no_bit_where_some_rows_choose(family, kv_dtype):
    lm, before, outcomes = taken(torch.bfloat16, family, index_n_heads=3), torch.get_num_threads(), []
    if kv_dtype:
        lm.store_in_eight_bits()
    shared_beginnings.check(lm, shared_beginnings.READERS[:4])
    cache = lm.new_cache(120)
    lm.forward([Rows(ids(CHOSEN - 5), cache, 0)])
    tokens = ids(20, 1)
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            cache.rollback(CHOSEN - 5)
            outcomes.append(lm.forward([Rows(tokens, cache, 20)])[0])
    finally:
        torch.set_num_threads(before)
    cache.rollback(CHOSEN - 5)
    alone = torch.cat([lm.forward([Rows(token[None], cache, 1)])[0] for token in tokens])
    assert all(torch.equal(each, alone) for each in outcomes)


def taken_indexer(taken_keys):
    lm = taken()
    own = lm._fused.indexers[0]
    own.taken = taken_keys
    return own


def rows_with(weights):
    """Return rows whose keys have few scores, so that many are equal; most are 0 where a query meets no key."""
    generator = torch.Generator().manual_seed(3)
    queries = torch.randint(-1, 2, (weights.shape[0], 6, DIM), generator=generator).float()
    keys = torch.randint(-1, 2, (weights.shape[0], 1, DIM), generator=generator).float()
    queries[..., 2:], keys[..., 2:] = 0, 0
    return indexer.IndexRows(queries, keys, weights)


@pytest.mark.parametrize("count", [5, 20, 60])
def test_of_equal_scores_those_are_chosen_that_a_single_token_takes_in_transformers(count):
    """Whether rows choose one by one, together, or as branches of a tree."""
    own, text = taken_indexer(9), rows_with(torch.ones(200, 6))
    keys = text.keys[:, 0]
    segments = [tuple(half.transpose(0, 1)[None] for half in text.halves)]
    new = indexer.IndexRows(*(each[-count:] for each in (text.queries, text.keys, text.weights)))
    choice = own.choice(new, segments, None)
    assert choice.rows.tolist() == list(range(count))
    ties = 0
    for row in range(count):
        seen = 200 - count + row + 1
        scores = own.scores(new, [row], keys[:seen])[0]
        assert torch.equal(choice.keys[row], scores.topk(9).indices.sort().values)
        ordered = scores.sort(descending=True).values
        ties += bool(ordered[8] == ordered[9])
    assert ties > count // 2
    branch = own.choice(new, segments, list(range(-1, count - 1)))
    assert torch.equal(branch.keys, choice.keys)


@pytest.mark.in_a_hurry(1)
@KERNELS
@pytest.mark.parametrize("family", FAMILIES)
def test_kernels_choose_among_equal_scores_as_the_operators_do(family):
    """With weights of 0 all scores are equal."""
    ours = taken(torch.bfloat16, family)
    exact = HuggingFaceLM(ours.transformers_copy(torch.float32), take_over=True)
    native_layers = ours._fused._native._kept[0]
    weights = [each.indexer.weights.data for each in native_layers if each.indexer is not None]
    for each in (*weights, *(own.weights for lm in (ours, exact) for own in lm._fused.indexers)):
        each.zero_()
    cache, same = ours.new_cache(300), exact.new_cache(300)
    ours.forward([Rows(ids(200), cache, 0)])
    for layer in range(cache.layers):
        same.write(layer, *(each.float() for each in cache.layer(layer)))
    same.advance(200)
    found, expected = (lm.forward([Rows(ids(16, 2), own, 16)])[0] for lm, own in ((ours, cache), (exact, same)))
    assert ((found - expected).norm(dim=1) / expected.norm(dim=1)).max() < 0.05


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=KERNELS)])
@pytest.mark.parametrize("quantization", [None, "int8"])
@pytest.mark.parametrize(
    "fault",
    [{"interleaved": False}, {"offset": -3.0}],  # of the rotation; of the weights of the keys' norm
)
def test_an_indexer_that_chooses_other_keys_is_refused(monkeypatch, dtype, quantization, fault):
    """A text of the comparison is far shorter than what an indexer chooses, so fewer keys are chosen for that time."""
    made = latent.Indexer

    def wrong(**own):
        if "offset" in fault:
            return made(**(own | {"key_norm": replace(own["key_norm"], **fault)}))
        return made(**(own | fault))

    monkeypatch.setattr(latent, "Indexer", wrong)
    with pytest.raises(UnsupportedModelError, match="its indexer number 1 chooses other keys"):
        HuggingFaceLM(model(dtype), take_over=True, quantization=quantization)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_choice_that_does_not_reach_the_attention_is_refused(monkeypatch, family):
    whole = indexer.TakenIndexer.choice

    def nothing(self, new, segments, parents, begin=0):
        chosen = whole(self, new, segments, parents, begin)
        return indexer.Choice(chosen.rows[:0], chosen.keys[:0])

    monkeypatch.setattr(indexer.TakenIndexer, "choice", nothing)
    with pytest.raises(UnsupportedModelError, match="differs from the model's own"):
        HuggingFaceLM(model(family=family), take_over=True)


def test_what_is_made_smaller_for_the_comparison_is_as_before():
    made = model()
    lm = HuggingFaceLM(made, take_over=True)
    assert {each.taken for each in lm._fused.indexers} == {CHOSEN}
    assert {each.index_topk for each in made.modules() if hasattr(each, "index_topk")} == {CHOSEN}


@pytest.mark.in_a_hurry(1)
@KERNELS
@pytest.mark.parametrize("family", FAMILIES)
def test_weights_of_heads_may_stay_in_float32(family):
    """transformers loads them so, though files have them in bfloat16."""
    whole, made = taken(torch.bfloat16, family), model(torch.bfloat16, family)
    for each in made.modules():
        if hasattr(each, "weights_proj"):
            each.weights_proj.float()
    lm, logits = HuggingFaceLM(made, take_over=True), []
    for each in (whole, lm):
        cache = each.new_cache(300)
        each.forward([Rows(ids(20), cache, 0)])
        logits.append(torch.cat([each.forward([Rows(part, cache, 20)])[0] for part in ids(160, 1).split(20)]))
    assert lm._fused._native is not None and torch.equal(*logits)


def test_no_layer_is_left_out_and_no_key_is_moved():
    lm = taken()
    assert not lm.has_parts and not lm.moves_keys


def test_a_model_that_others_use_too_is_refused_with_the_way_out():
    with pytest.raises(UnsupportedModelError, match="it needs to be loaded by its name or folder"):
        HuggingFaceLM(model())


def test_keys_that_nobody_has_chosen_are_no_description():
    made = model(indexer_types=["full"] * LAYERS)
    made.model.layers[0].self_attn.indexer = None
    with pytest.raises(latent.NotDescribedError, match="no layer before them"):
        deepseek.describe(made)


@KERNELS
def test_the_kernels_say_which_indexers_they_serve():
    lm = HuggingFaceLM(model(torch.bfloat16, index_head_dim=96), take_over=True)
    assert lm._fused._native is None and "keys of its indexers have 96 numbers" in lm.kernels


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", [torch.float32, pytest.param(torch.bfloat16, marks=KERNELS)])
@pytest.mark.parametrize("kv_dtype", [None, "int8"])
@pytest.mark.long
def test_drafts_shared_documents_and_files_change_no_answer(tmp_path, family, kind, kv_dtype):
    def engine(**options):
        loaded = wrap(model(kind, family), byte_tokenizer(), take_over=True)
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
