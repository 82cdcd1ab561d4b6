"""Sparse prefill through the front door: decoding and everything that is shared or kept is exact with it, too."""

import pytest
import torch

from rapid_integrations import CompressionConfig, Prompt, RapidEngine, SamplingParams, SpeculationConfig
from rapid_integrations.cache import TILE, Rows
from rapid_integrations.models import loader
from tests.toys.decoders import model
from tests.toys.embedder import HashEmbedder
from tests.toys.models import byte_tokenizer, tiny_model, words

DOCUMENT = words(1, 330)
QUESTIONS = ("which words?", "how many of them are there?", "what comes behind them?")
THRESHOLD = 0.5


def lm(kind="kernels", threshold=THRESHOLD):
    made = model("qwen2", max_position_embeddings=4096) if kind == "kernels" else tiny_model("llama", 0)
    made.config.max_position_embeddings = 4096
    loaded = loader.wrap(made, byte_tokenizer(), take_over=True)
    if threshold is not None:
        loaded.lm.read_prompts_sparsely(threshold)
    return loaded


def engine(kind="kernels", threshold=THRESHOLD, **options):
    return RapidEngine(
        lm(kind, threshold),
        embedder=HashEmbedder(),
        compression=CompressionConfig(chunk_tokens=64, min_tokens=64, min_chunks=2),
        sampling=SamplingParams(max_new_tokens=12),
        **options,
    )


def about(question):
    return Prompt.from_context(DOCUMENT, question)


def rows_of(loaded, ids, ends):
    """Return the keys of the last layer, (H_kv, T, D), after a prefill in pieces that end at `ends`."""
    cache, begin = loaded.new_cache(len(ids)), 0
    for end in ends:
        loaded.forward([Rows(ids[begin:end], cache, 0, of_prompt=True)])
        begin = end
    return cache.layer(cache.layers - 1)[0][0]


@pytest.mark.parametrize("kind", ["kernels", "operators"])
def test_rows_do_not_depend_on_how_the_prompt_is_cut_nor_on_company(kind):
    loaded = lm(kind).lm
    ids = torch.randint(3, 200, (1600,), generator=torch.Generator().manual_seed(1))
    whole = rows_of(loaded, ids, [1600])
    dense = rows_of(lm(kind, None).lm, ids, [1600])
    assert torch.equal(whole[:, :1024], dense[:, :1024]) and not torch.equal(whole[:, 1088:], dense[:, 1088:])
    for ends in ([1024, 1600], [640, 1088, 1536, 1600]):
        torch.testing.assert_close(rows_of(loaded, ids, ends), whole, rtol=0, atol=0 if kind == "kernels" else 1e-5)
    caches = [loaded.new_cache(1600) for _ in range(2)]
    loaded.forward([Rows(ids, caches[0], 0, of_prompt=True), Rows(ids[:1280], caches[1], 0, of_prompt=True)])
    for cache, length in zip(caches, (1600, 1280), strict=True):
        found = cache.layer(cache.layers - 1)[0][0]
        torch.testing.assert_close(found, whole[:, :length], rtol=0, atol=0 if kind == "kernels" else 1e-5)


def test_only_whole_blocks_of_a_prompt_are_used_again():
    loaded = lm().lm
    ids = torch.randint(3, 200, (1500,), generator=torch.Generator().manual_seed(1))
    cache = loaded.new_cache(1600)
    loaded.forward([Rows(ids[:1410], cache, 0, of_prompt=True)])
    loaded.forward([Rows(ids[1410:1412], cache, 1)])
    loaded.forward([Rows(ids[1412:], cache, 0, of_prompt=True)])
    assert cache.length == 1500 and cache.sparse_rows == 1408
    assert cache.reusable(1500) == 1408 and cache.reusable(1300) == 1280
    fork = cache.fork(1280, 1600)
    assert fork.sparse_rows == 1280
    assert lm(threshold=None).lm.new_cache(64).sparse_rows is None


@pytest.mark.parametrize("kind", ["kernels", "operators"])
def test_what_is_proposed_and_rejected_changes_no_answer(kind):
    with engine(kind) as shared:
        plain = shared.generate(about(QUESTIONS[0]), speculation=SpeculationConfig(law="target", proposer="none"))
        assert plain.stats.sparse_prefill == THRESHOLD
        for proposer in ("prompt_lookup", "drafter"):
            asked = SpeculationConfig(law="target", proposer=proposer, draft_length=4)
            assert shared.generate(about(QUESTIONS[0]), speculation=asked).token_ids == plain.token_ids


@pytest.mark.parametrize("law", ["target", "augmented"])
def test_shared_documents_company_and_restarts_change_no_answer(tmp_path, law):
    asked = SpeculationConfig(law=law, draft_length=3)
    with engine(prefix_cache_bytes=0) as alone:
        expected = [alone.generate(about(each), speculation=asked).token_ids for each in QUESTIONS]
    with engine(prefix_cache_dir=tmp_path) as first:
        streams = [first.stream(about(each), speculation=asked) for each in QUESTIONS]
        assert [tuple(token for piece in each for token in piece.token_ids) for each in streams] == expected
        again = first.generate(about(QUESTIONS[1]), speculation=asked)
        assert again.token_ids == expected[1] and again.stats.cached_prompt_tokens > len(DOCUMENT) - TILE
        assert again.stats.cached_prompt_tokens % TILE == 0
    with engine(prefix_cache_dir=tmp_path) as later:
        found = later.generate(about(QUESTIONS[2]), speculation=asked)
        assert found.token_ids == expected[2] and found.stats.cached_prompt_tokens > len(DOCUMENT) - TILE
        assert found.stats.cached_prompt_tokens % TILE == 0


@pytest.mark.parametrize("other", [None, 0.8])
def test_files_of_another_prefill_are_not_taken(tmp_path, other):
    with engine(prefix_cache_dir=tmp_path) as sparse:
        sparse.generate(about(QUESTIONS[0]))
    assert list(tmp_path.glob("*.safetensors"))
    for threshold, cached in ((other, False), (THRESHOLD, True)):
        with engine(prefix_cache_dir=tmp_path, threshold=threshold) as later:
            found = later.generate(about(QUESTIONS[0]))
            assert found.stats.sparse_prefill == threshold
            assert (found.stats.cached_prompt_tokens > 0) == cached


def test_a_document_that_was_read_ahead_is_said_to_be_in_memory():
    with engine() as shared:
        said = shared.read(DOCUMENT)
        assert said.in_memory and said.tokens % TILE
        assert shared.read(DOCUMENT).cached_tokens == said.tokens // TILE * TILE
