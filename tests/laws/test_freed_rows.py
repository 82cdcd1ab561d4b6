"""Layers with a sliding window free rows: no answer changes, and no bit of it, whoever read the text before.

Rows are freed early here, and overwritten with nonsense (`tests/toys/freed_rows.py`).
"""

import pytest
import torch

from rapid_integrations import CompressionConfig, Prompt, RapidEngine, SamplingParams, SpeculationConfig
from rapid_integrations.cache import Rows
from rapid_integrations.errors import ConfigurationError
from rapid_integrations.kernels.cpu import native_library
from rapid_integrations.models import loader
from rapid_integrations.models.hf import HuggingFaceLM
from tests.toys.decoders import ids, model
from tests.toys.embedder import HashEmbedder
from tests.toys.every_family import tiny
from tests.toys.freed_rows import BRANCHES, rows_freed_early
from tests.toys.models import byte_tokenizer, tiny_model, words

USUAL = ("gemma3_text", "gpt_oss", "exaone4", "cohere2", "olmo3")
OTHERS = ("gemma2", "mistral", "ministral", "phi3", "starcoder2", "smollm3", "gemma4_text", "llama4_text", "qwen2")
SETTINGS = {
    "llama4_text": {
        **{"no_rope_layers": [1, 0, 1], "attention_chunk_size": 32, "floor_scale": 8, "attn_scale": 0.5},
        **{"intermediate_size_mlp": 64, "moe_layers": [0, 2]},
    }
}
TEXT, NEW = 150, 40
TREE = (-1, 0, 0, 1)
WINDOW = 48  # of the engines


@torch.inference_mode()
def generated(reference, text):
    reference.set_attn_implementation("eager")
    answer = reference.generate(text[None], max_new_tokens=NEW, do_sample=False, eos_token_id=-1, pad_token_id=0)
    return answer[0, len(text) :].tolist()


def decoded(lm, text):
    """Greedy tokens, with a draft that is rejected behind each of them, and the cache."""
    cache = lm.new_cache(TEXT + NEW + 10)
    for begin in range(0, TEXT - 1, 60):
        lm.forward([Rows(text[begin : min(begin + 60, TEXT - 1)], cache, 0, of_prompt=True)])
    answer = [int(lm.forward([Rows(text[-1:], cache, 1)])[0][-1].argmax())]
    while len(answer) < NEW:
        length = cache.length
        logits = lm.forward([Rows(torch.tensor([answer[-1], 5, 6]), cache, 3)])[0]
        cache.rollback(length + 1)
        answer.append(int(logits[0].argmax()))
    return answer, cache


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("take_over", [True, False])
@pytest.mark.parametrize("family", [*USUAL, *(pytest.param(each, marks=pytest.mark.slow) for each in OTHERS)])
def test_greedy_output_is_what_transformers_generates(family, take_over):
    settings, text = SETTINGS.get(family, {}), ids(TEXT)
    text %= 250
    with rows_freed_early():
        lm = loader.wrap(tiny(family, **settings), byte_tokenizer(), take_over=take_over).lm
        answer, cache = decoded(lm, text)
    assert answer == generated(tiny(family, **settings), text)
    window, nbytes = lm.windowed
    assert (window > 0) == (nbytes > 0) == bool(cache.freed)
    assert bool(cache.freed) == (family not in ("qwen2", "smollm3", "gemma2") or window > 0)


def passes(lm, window):
    """The logits of a prompt in pieces, of rejected drafts, of trees, and of texts that part from it, in company."""
    text = ids(400, 3)
    cache = lm.new_cache(1000)
    logits = [lm.forward([Rows(piece, cache, 1, of_prompt=True)])[0] for piece in text.split(120)]
    for at in range(60):
        length = cache.length
        logits += lm.forward([Rows(ids(4, at), cache, 4)])
        cache.rollback(length)
        logits += lm.forward([Rows(ids(4, at), cache, 4, parents=TREE)])
        cache.keep(length, [0, 2])
    lengths = (cache.length, 400, 400 - BRANCHES + 1, 2 * window)
    assert [cache.reusable(length) for length in lengths] == [*lengths]
    others = [cache.fork(length, length + 200) for length in lengths]
    for at in range(20):
        logits += lm.forward([Rows(ids(3, at + number), each, 3) for number, each in enumerate(others)])
    for each in others:
        logits += lm.forward([Rows(ids(50, 9), each, 1, of_prompt=True)])
    return logits, [cache, *others]


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("eight_bits", [False, True])
@pytest.mark.parametrize("kind", ["gemma3", "mistral"])
def test_no_bit_changes(kind, eight_bits):
    if native_library() is None:
        pytest.skip("no compiler, or RAPID_NATIVE=0")
    window = 90 if kind == "mistral" else 70
    lm = HuggingFaceLM(model(kind, sliding_window=window), take_over=True)
    assert lm._fused._native is not None
    if eight_bits:
        lm.store_in_eight_bits()
    with rows_freed_early():
        found, freed = passes(lm, window)
    with rows_freed_early(ever=False):
        wanted, whole = passes(lm, window)
    assert all(each.freed for each in freed) and not any(each.freed for each in whole)
    assert freed[0].nbytes < whole[0].nbytes
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, wanted, strict=True))


DOCUMENT = words(1, 100)
QUESTIONS = ("which words?", "how many?", "what comes behind them?")
HALF = DOCUMENT[: len(DOCUMENT) // 2] + words(7, 30)


def engine(kernels, **options):
    size = {"max_position_embeddings": 4096, "sliding_window": WINDOW}
    made = model("gemma3", **size) if kernels else tiny_model("gemma3", 0, **size)
    return RapidEngine(
        loader.wrap(made, byte_tokenizer(), take_over=True),
        embedder=HashEmbedder(),
        compression=CompressionConfig(chunk_tokens=64, min_tokens=64, min_chunks=2),
        sampling=SamplingParams(max_new_tokens=30),
        **options,
    )


ASKED = [(DOCUMENT, question) for question in QUESTIONS] + [(HALF, QUESTIONS[0])]


@pytest.mark.parametrize("kernels", [True, False])
def test_shared_documents_company_and_restarts_change_no_answer(tmp_path, kernels):
    if kernels and native_library() is None:
        pytest.skip("PyTorch's sums in bfloat16 depend on how many rows are read at once")
    asked = SpeculationConfig(law="augmented", draft_length=3)
    prompts = [Prompt.from_context(*each) for each in ASKED]
    with rows_freed_early(ever=False), engine(kernels, prefix_cache_bytes=0) as alone:
        expected = [alone.generate(each, speculation=asked).token_ids for each in prompts]
    with rows_freed_early():
        with engine(kernels, prefix_cache_dir=tmp_path) as first:
            streams = [first.stream(each, speculation=asked) for each in prompts]
            assert [tuple(token for piece in each for token in piece.token_ids) for each in streams] == expected
            caches = first._prefixes.memory.caches()
            assert caches and all(each.freed for each in caches if each.length > 300)
            for prompt, answer in zip(prompts, expected, strict=True):
                again = first.generate(prompt, speculation=asked)
                assert again.token_ids == answer
                assert again.stats.cached_prompt_tokens == again.usage.prompt_tokens - 1
        with engine(kernels, prefix_cache_dir=tmp_path) as later:
            for prompt, answer in zip(prompts, expected, strict=True):
                found = later.generate(prompt, speculation=asked)
                assert found.token_ids == answer and found.stats.cached_prompt_tokens > 256
            assert all(each.freed for each in later._prefixes.memory.caches() if each.length > 300)


def test_a_part_of_a_document_is_read_again_from_where_rows_are_kept():
    cached = []
    for ever in (False, True):
        with rows_freed_early(ever=ever), engine(False) as running:
            running.generate(Prompt.from_context(*ASKED[0]))
            cached.append(running.generate(Prompt.from_context(*ASKED[-1])).stats.cached_prompt_tokens)
            again = running.generate(Prompt.from_context(HALF, QUESTIONS[1]))
            assert again.stats.cached_prompt_tokens > len(HALF)
    assert 0 < cached[0] - cached[1] < 2 * WINDOW


def test_what_would_need_freed_rows_is_refused_or_replaced():
    with engine(False) as running:
        for chunks in ("target", "view"):
            with pytest.raises(ConfigurationError, match="sliding windows"):
                running.generate(Prompt.from_context(*ASKED[0]), speculation=SpeculationConfig(chunk_cache=chunks))
        plain = running.generate(Prompt.from_context(*ASKED[0]), speculation=SpeculationConfig(law="target"))
        for proposer in ("magicdec", "triforce", "skipped_layers"):
            asked = SpeculationConfig(law="target", proposer=proposer)
            assert running.generate(Prompt.from_context(*ASKED[0]), speculation=asked).token_ids == plain.token_ids
