"""Prefixes that survive a restart: real second processes, and what becomes of them when a process dies."""

import json
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapid_integrations import Prompt, SpeculationConfig
from rapid_integrations.cache import prefix_store
from rapid_integrations.proposers.suite.table_model import TableLM
from tests.toys.budget import examples
from tests.toys.models import words
from tests.toys.prefix_requests import DOCUMENT, PARTS, assert_entries_are_right, engine, expected, request_of

ASK = """
import json, sys, warnings
warnings.simplefilter("error", RuntimeWarning)
from rapid_integrations import Prompt
from tests.toys.prefix_requests import DOCUMENT, engine

shared = engine(prefix_cache_dir=sys.argv[1], drafter=sys.argv[3] or None)
for question in sys.argv[4:]:
    answer = shared.generate(Prompt.from_context(DOCUMENT, question))
    print(json.dumps([answer.token_ids, answer.stats.cached_prompt_tokens, answer.stats.cached_drafter_tokens]))
if sys.argv[2] == "close":
    shared.close()
"""


def ask(children, folder, end, drafter, *questions):
    """Return (tokens, cached tokens of the target, of the drafter) of each question, asked in a process of its own."""
    out = children.run(ASK, folder, end, drafter, *questions)
    assert out.returncode == 0 and not out.stderr, out.stderr
    return [json.loads(line) for line in out.stdout.splitlines()]


@pytest.mark.parametrize(("end", "drafter"), [("close", ""), ("just end", "qwen2")])
def test_a_second_process_finds_the_document_read(children, tmp_path, end, drafter):
    ((_, cached, _),) = ask(children, tmp_path, end, drafter, "which words?")
    assert cached == 0
    (second, third) = ask(children, tmp_path, end, drafter, "how many?", "which words?")
    with engine(drafter=drafter or None, prefix_cache_bytes=0) as without:
        for question, (tokens, cached, _) in (("how many?", second), ("which words?", third)):
            assert cached > len(DOCUMENT)
            assert tuple(tokens) == without.generate(Prompt.from_context(DOCUMENT, question)).token_ids


def test_without_memory_the_disk_serves(tmp_path):
    options = {"prefix_cache_dir": tmp_path, "prefix_cache_bytes": 0}
    with engine(**options) as first:
        assert first.reuses_prefixes
        first.generate(Prompt.from_context(DOCUMENT, "which?"))
    with engine(**options) as second:
        stats = second.generate(Prompt.from_context(DOCUMENT, "how?")).stats
        assert stats.cached_prompt_tokens > len(DOCUMENT) and len(second._prefixes.memory) == 0


def test_a_drafter_is_saved_once_its_prompt_has_come_back(tmp_path, monkeypatch):
    monkeypatch.setattr(prefix_store, "MIN_GAIN_TOKENS", 64)
    monkeypatch.setattr("rapid_integrations.decoding.prefixes.MIN_GAIN_TOKENS", 64)
    prompt = Prompt.from_context(DOCUMENT, "which?")
    for asked, files in ((1, 1), (2, 2)):
        folder = tmp_path / str(asked)
        with engine(prefix_cache_dir=folder) as shared:
            for _ in range(asked):
                shared.generate(prompt)
        assert len(list(folder.glob("*.safetensors"))) == files
        with engine(prefix_cache_dir=folder) as fresh:
            stats = fresh.generate(prompt).stats
            assert stats.cached_prompt_tokens > len(DOCUMENT)
            assert (stats.cached_drafter_tokens > 100) == (asked == 2)


def test_changed_weights_find_nothing(tmp_path):
    prompt = Prompt.from_context(DOCUMENT, "which?")
    with engine(prefix_cache_dir=tmp_path) as first:
        first.generate(prompt)
    with engine(prefix_cache_dir=tmp_path) as second:
        weights = second.target.model.lm_head.weight.data
        before = weights.clone()
        weights[0, 0] += 1
        assert second.generate(prompt).stats.cached_prompt_tokens == 0
        weights.copy_(before)
        second.clear_prefix_cache()
        assert second.generate(prompt).stats.cached_prompt_tokens > len(DOCUMENT)


def test_a_damaged_file_costs_a_warning_and_no_answer(tmp_path):
    prompt = Prompt.from_context(DOCUMENT, "which?")
    with engine(prefix_cache_dir=tmp_path) as first:
        tokens = first.generate(prompt).token_ids
    (path,) = tmp_path.glob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with engine(prefix_cache_dir=tmp_path) as second:
        with pytest.warns(RuntimeWarning, match="A saved prefix is ignored"):
            answer = second.generate(prompt)
        assert answer.token_ids == tokens and answer.stats.cached_prompt_tokens == 0


def test_a_model_without_a_fingerprint_is_not_kept_on_disk(tmp_path):
    with engine(prefix_cache_dir=tmp_path) as shared:
        shared.target = shared.drafter = TableLM(1, 260)
        shared._vocab_size = 260
        with pytest.warns(RuntimeWarning, match="prefixes of table are not saved to disk: a table has no weights"):
            shared.generate(Prompt.from_context(DOCUMENT, "which?"), speculation=SpeculationConfig(law="target"))
    assert not list(tmp_path.glob("*.safetensors"))


@settings(max_examples=examples(10), derandomize=True)
@given(
    runs=st.lists(
        st.lists(st.tuples(st.lists(st.integers(0, 3), min_size=1, max_size=3), st.integers(0, 2)), max_size=3),
        min_size=2,
        max_size=3,
    ),
    memory=st.sampled_from([0, "auto"]),
)
def test_any_history_of_restarts_gives_the_answers_of_an_engine_without_reuse(tmp_path_factory, runs, memory):
    folder = tmp_path_factory.mktemp("prefixes")
    for run in runs:
        with engine("gemma3", prefix_cache_dir=folder, prefix_cache_bytes=memory) as shared:
            for parts, question in run:
                if question == 1:  # read ahead, by this process or the one before
                    shared.read(" ".join(PARTS[part] for part in parts))
                key = (tuple(parts), question, "target", "drafter")
                prompt, speculation = request_of(*key)
                assert shared.generate(prompt, speculation=speculation).token_ids == expected("gemma3", *key)
            assert_entries_are_right(shared)


def test_an_engine_that_is_reused_while_it_saves(tmp_path):
    """Each question takes the cache back that is being written."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with engine(prefix_cache_dir=tmp_path) as shared, engine(prefix_cache_bytes=0) as without:
            for number in range(6):
                prompt = Prompt.from_context(words(3, 250), f"question {number}? {words(number, 80)}")
                assert shared.generate(prompt).token_ids == without.generate(prompt).token_ids
        with engine(prefix_cache_dir=tmp_path) as second:
            assert second.generate(prompt).stats.cached_prompt_tokens > 1000
