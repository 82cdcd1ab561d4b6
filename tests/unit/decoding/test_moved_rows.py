"""Chunk KV: rows that were computed at other positions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rapid_integrations import CompressionConfig, ConfigurationError, RapidEngine, SamplingParams, SpeculationConfig
from rapid_integrations.cache import Rows
from rapid_integrations.decoding.moved_rows import LEAST_RUN, REPAIRED, common_runs, prefill
from rapid_integrations.decoding.passes import run_alone
from rapid_integrations.decoding.reader import Reader
from rapid_integrations.models import loader
from rapid_integrations.models.causal_lm import MovesKeys
from tests.toys.budget import examples
from tests.toys.embedder import HashEmbedder
from tests.toys.errors import coded
from tests.toys.models import byte_tokenizer, tiny_model, words
from tests.toys.prefix_requests import DOCUMENT, about, assert_entries_are_right, engine
from tests.toys.requests import read

MOVED = SpeculationConfig(law="augmented", chunk_cache="target")
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512, "rope_theta": 1e4}
ROWS_TOLERANCE = 1e-4  # on keys of size 1 to 10, float32: turned twice


def one_layer(kind="llama", **config):
    """An engine whose rows depend on nothing but token and position, so that moved rows are those of a prefill."""
    model = tiny_model(kind, 0, num_hidden_layers=1, max_position_embeddings=4096, **config)
    return RapidEngine(
        loader.wrap(model, byte_tokenizer(), take_over=True),
        embedder=HashEmbedder(),
        compression=CompressionConfig(chunk_tokens=64, min_tokens=64, min_chunks=2),
        sampling=SamplingParams(max_new_tokens=10),
    )


@settings(max_examples=examples(60), derandomize=True)
@given(
    source=st.lists(st.integers(0, 3), max_size=200),
    cuts=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200)), max_size=4),
)
def test_runs_are_what_both_texts_have(source, cuts):
    prompt = [token for begin, end in cuts for token in [9, *source[begin:end], 8]]
    runs = list(common_runs(prompt, source))
    position = 0
    for run in runs:
        assert run.begin >= position and run.length >= LEAST_RUN
        position = run.begin + run.length
        assert prompt[run.begin : position] == source[run.source : run.source + run.length]
    taken = sum(run.length for run in runs)
    assert taken >= sum(len(source[begin:end]) for begin, end in cuts if len(source[begin:end]) >= LEAST_RUN) - sum(
        1 for each in prompt if each in (8, 9)
    )


def test_a_repeated_text_is_taken_where_most_of_it_follows():
    text = list(range(60))
    (run,) = common_runs([99, *text, 98], [*text[:40], 97, *text, 97, *text[:50]])
    assert (run.begin, run.source, run.length) == (1, 41, 60)


@pytest.mark.parametrize(
    ("kind", "config"),
    [("llama", {}), ("qwen2", {}), ("qwen3", {}), ("mistral", {}), ("llama", {"rope_parameters": YARN})],
    ids=["llama", "qwen2", "qwen3", "mistral", "yarn"],
)
@pytest.mark.parametrize("before", [0, 50])
def test_moved_keys_are_those_of_the_new_position(kind, config, before):
    with one_layer(kind, **config) as built:
        model, ids = built.target, torch.tensor(list(words(3, 30).encode()))
        cache, elsewhere = (model.new_cache(400) for _ in range(2))
        model.forward([Rows(torch.cat([ids[:before], ids]), cache, 0)])
        model.forward([Rows(torch.cat([ids[:77], ids]), elsewhere, 0)])
        keys, values = elsewhere.rows(0, 77, elsewhere.length)
        wanted, same = cache.rows(0, before, cache.length)
        assert isinstance(model, MovesKeys)
        torch.testing.assert_close(model.shifted(0, keys, before - 77), wanted, rtol=0, atol=ROWS_TOLERANCE)
        torch.testing.assert_close(values, same, rtol=0, atol=ROWS_TOLERANCE)


def test_what_both_prompts_begin_with_is_taken_whole():
    with engine("qwen3") as built:
        ids = list(DOCUMENT.encode())[:400]
        source = Reader(built.target, ids, 500)
        run_alone(source.prefill())
        prompt = [*ids[:200], *ids[300:]]
        reader = Reader(built.target, prompt, 400)
        run_alone(prefill(reader, [(run, source.cache) for run in common_runs(prompt, ids)]))
        assert reader.cache.length == len(prompt) - 1
        assert reader.reused == len(prompt) - 1 - REPAIRED
        for layer in range(reader.cache.layers):
            for mine, theirs in zip(reader.cache.rows(layer, 0, 200), source.cache.rows(layer, 0, 200), strict=True):
                assert torch.equal(mine, theirs)


def test_with_one_layer_q_is_exact():
    with one_layer() as built:
        for question in ("which words?", "why?"):
            exact = built.generate(about(DOCUMENT, question), speculation=SpeculationConfig(law="augmented"))
            moved = built.generate(about(DOCUMENT, question), speculation=MOVED)
            assert moved.token_ids == exact.token_ids
            assert exact.stats.chunk_cache == "off" and moved.stats.chunk_cache == "target"
            assert moved.stats.cached_drafter_tokens > 64


def test_with_more_layers_q_is_near_and_the_target_s_law_the_same():
    prompt = about(DOCUMENT, "which words?")
    with engine("qwen3") as built:
        ids = built.explain(prompt)
        source = Reader(built.target, ids.target_ids, len(ids.target_ids) + 1)
        run_alone(source.prefill())
        taken = [(run, source.cache) for run in common_runs(ids.drafter_ids, ids.target_ids)]
        rows = []
        for runs in ([], taken):
            reader = Reader(built.drafter, ids.drafter_ids, len(ids.drafter_ids) + 1)
            run_alone(prefill(reader, runs))
            rows.append(torch.softmax(read(reader, [], keep=1)[0], -1))
        assert 0 < (rows[0] - rows[1]).abs().sum() / 2
        answers = [
            built.generate(prompt, speculation=SpeculationConfig(law="target", proposer="drafter", chunk_cache=way))
            for way in ("off", "target")
        ]
        assert answers[0].token_ids == answers[1].token_ids


def test_moved_rows_are_neither_kept_nor_shared():
    prompt = about(DOCUMENT, "which words?")
    with engine("qwen3") as shared, engine("qwen3", prefix_cache_bytes=0) as without:
        for speculation in (MOVED, SpeculationConfig(law="augmented"), MOVED):
            answer = shared.generate(prompt, speculation=speculation)
            assert answer.token_ids == without.generate(prompt, speculation=speculation).token_ids
            assert_entries_are_right(shared)
        with shared._prefixes.request() as one, shared._prefixes.request() as two:
            ids = shared.explain(prompt).drafter_ids
            one.open_empty(shared.drafter, "drafter", ids, len(ids) + 1)
            two.open(shared.drafter, "drafter", ids, len(ids) + 1)
            assert not shared._prefixes.others(shared.drafter, "drafter", two)


@pytest.mark.parametrize(("kind", "drafter"), [("llama", "qwen2"), ("gemma3", None)])
def test_models_whose_rows_cannot_be_taken_are_refused(kind, drafter):
    refused = pytest.raises(ConfigurationError, check=coded("configuration.other_rows"))
    with engine(kind, drafter) as built, refused:
        built.generate(about(DOCUMENT, "which?"), speculation=MOVED)
