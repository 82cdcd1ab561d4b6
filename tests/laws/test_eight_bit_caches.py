"""Caches in eight bits through the front door: all that is exact with whole caches is exact with them, too."""

import pytest

from rapid_integrations import CompressionConfig, Prompt, RapidEngine, SamplingParams, SpeculationConfig
from rapid_integrations.kernels.cpu import native_library
from rapid_integrations.models import loader
from tests.toys.decoders import model
from tests.toys.embedder import HashEmbedder
from tests.toys.models import byte_tokenizer, tiny_model, words

DOCUMENT = words(1, 200)
QUESTIONS = ("which words?", "how many?", "what comes behind them?")


def engine(kind="kernels", **options):
    made = model("qwen2", max_position_embeddings=4096) if kind == "kernels" else tiny_model("llama", 0)
    if kind == "operators":
        made.config.max_position_embeddings = 4096
    loaded = loader.wrap(made, byte_tokenizer(), take_over=True)
    loaded.lm.store_in_eight_bits()
    return RapidEngine(
        loaded,
        embedder=HashEmbedder(),
        compression=CompressionConfig(chunk_tokens=64, min_tokens=64, min_chunks=2),
        sampling=SamplingParams(max_new_tokens=12),
        **options,
    )


def about(question):
    return Prompt.from_context(DOCUMENT, question)


@pytest.mark.parametrize("kind", ["kernels", "operators"])
def test_what_is_proposed_and_rejected_changes_no_answer(kind):
    with engine(kind) as shared:
        plain = shared.generate(about(QUESTIONS[0]), speculation=SpeculationConfig(law="target", proposer="none"))
        assert plain.stats.kv_dtype == "int8"
        own = ("skipped_layers", "magicdec", "triforce")
        for proposer in ("prompt_lookup", "retrieval_tree", "tree_hybrid", "drafter", *own):
            for length in (1, 5):
                asked = SpeculationConfig(law="target", proposer=proposer, draft_length=length)
                assert shared.generate(about(QUESTIONS[0]), speculation=asked).token_ids == plain.token_ids


@pytest.mark.skipif(
    native_library() is None, reason="PyTorch's sums in bfloat16 depend on how many rows are read at once"
)
@pytest.mark.parametrize("law", ["target", "augmented"])
def test_shared_documents_company_and_restarts_change_no_answer(tmp_path, law):
    asked = SpeculationConfig(law=law, draft_length=3)
    with engine(prefix_cache_bytes=0) as alone:
        expected = [alone.generate(about(each), speculation=asked).token_ids for each in QUESTIONS]
    with engine(prefix_cache_dir=tmp_path) as first:
        streams = [first.stream(about(each), speculation=asked) for each in QUESTIONS]
        assert [tuple(token for piece in each for token in piece.token_ids) for each in streams] == expected
        again = first.generate(about(QUESTIONS[1]), speculation=asked)
        assert again.token_ids == expected[1] and again.stats.cached_prompt_tokens > len(DOCUMENT)
    with engine(prefix_cache_dir=tmp_path) as later:
        found = later.generate(about(QUESTIONS[2]), speculation=asked)
        assert found.token_ids == expected[2] and found.stats.cached_prompt_tokens > len(DOCUMENT)


def test_files_of_whole_caches_are_not_taken_for_those_in_eight_bits(tmp_path):
    with engine(prefix_cache_dir=tmp_path) as half:
        half.generate(about(QUESTIONS[0]))
    files = sorted(tmp_path.glob("*.safetensors"))
    whole = loader.wrap(model("qwen2", max_position_embeddings=4096), byte_tokenizer(), take_over=True)
    with RapidEngine(whole, embedder=HashEmbedder(), prefix_cache_dir=tmp_path) as other:
        found = other.generate(about(QUESTIONS[0]))
        assert found.stats.kv_dtype == "bfloat16" and found.stats.cached_prompt_tokens == 0
    sizes = [path.stat().st_size for path in tmp_path.glob("*.safetensors") if path not in files]
    assert files and sizes and max(path.stat().st_size for path in files) < 0.6 * max(sizes)


def test_a_budget_takes_twice_the_requests():
    with engine() as shared:
        lm = shared.target
        assert lm.kv_bytes_per_token == shared._prefixes.need(lm, "target", [1, 2], 512) // 512
        completion = shared.generate(about(QUESTIONS[0]))
        assert completion.stats.cache_bytes % lm.kv_bytes_per_token == 0


def test_moved_rows_of_chunks_are_stored_in_eight_bits():
    with engine() as shared:
        asked = SpeculationConfig(law="target", chunk_cache="target")
        shared.generate(about(QUESTIONS[0]))
        found = shared.generate(about(QUESTIONS[1]), speculation=asked)
        plain = shared.generate(about(QUESTIONS[1]), speculation=SpeculationConfig(law="target", proposer="none"))
        assert found.stats.chunk_cache == "target" and found.token_ids == plain.token_ids
