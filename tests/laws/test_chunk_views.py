"""A drafter that reads its chunks in place: q depends on both prompts alone, and a token on no company."""

import pytest

from rapid_integrations import CompressionConfig, Prompt, RapidEngine, SamplingParams, SpeculationConfig
from rapid_integrations.kernels.cpu import native_library
from rapid_integrations.models import loader
from tests.toys.decoders import model
from tests.toys.embedder import HashEmbedder
from tests.toys.models import byte_tokenizer, words

pytestmark = pytest.mark.skipif(
    native_library() is None, reason="PyTorch's sums in bfloat16 depend on how many rows are read at once"
)
DOCUMENT = words(1, 200)
QUESTIONS = ("which words?", "how many?", "what comes behind them?", "why?")
WAYS_TO_SAMPLE = {"greedy": {"temperature": 0.0}, "drawn": {"temperature": 0.9, "seed": 7}}


def engine(kv_dtype=None, **options):
    loaded = loader.wrap(model("qwen2", max_position_embeddings=4096), byte_tokenizer(), take_over=True)
    if kv_dtype == "int8":
        loaded.lm.store_in_eight_bits()
    return RapidEngine(
        loaded,
        embedder=HashEmbedder(),
        compression=CompressionConfig(chunk_tokens=64, min_tokens=64, min_chunks=2),
        **options,
    )


def ask(engine, question, sampling, **speculation):
    asked = SpeculationConfig(law="augmented", chunk_cache="view", **speculation)
    prompt = Prompt.from_context(DOCUMENT, question)
    return engine.stream(prompt, sampling=SamplingParams(max_new_tokens=16, **sampling), speculation=asked)


def tokens(stream, cached=0):
    pieces = list(stream)
    stats = pieces[-1].stats
    assert stats.chunk_cache == "view" and stats.cached_drafter_tokens > 64 and stats.cached_prompt_tokens >= cached
    assert stats.cached_drafter_tokens < pieces[-1].usage.drafter_prompt_tokens  # it reads the question itself
    return [token for piece in pieces for token in piece.token_ids]


@pytest.mark.once
@pytest.mark.parametrize("sampling", WAYS_TO_SAMPLE)
@pytest.mark.parametrize("kv_dtype", [None, "int8"])
def test_company_shared_documents_and_restarts_change_no_answer(tmp_path, kv_dtype, sampling):
    drawn = WAYS_TO_SAMPLE[sampling]
    with engine(kv_dtype, prefix_cache_bytes=0) as alone:
        expected = [tokens(ask(alone, each, drawn)) for each in QUESTIONS]
    with engine(kv_dtype, prefix_cache_dir=tmp_path) as first:
        assert [tokens(each) for each in [ask(first, each, drawn) for each in QUESTIONS]] == expected
        assert tokens(ask(first, QUESTIONS[1], drawn)) == expected[1]
    with engine(kv_dtype, prefix_cache_dir=tmp_path) as later:
        assert tokens(ask(later, QUESTIONS[2], drawn), cached=len(DOCUMENT)) == expected[2]


@pytest.mark.parametrize("proposer", ["none", "drafter", "prompt_lookup", "retrieval_tree", "tree_hybrid", "magicdec"])
def test_what_is_proposed_changes_no_answer(proposer):
    with engine() as built:
        expected = tokens(ask(built, QUESTIONS[0], WAYS_TO_SAMPLE["greedy"], proposer="hybrid"))
        for length in (1, 5):
            found = ask(built, QUESTIONS[0], WAYS_TO_SAMPLE["greedy"], proposer=proposer, draft_length=length)
            assert tokens(found) == expected
