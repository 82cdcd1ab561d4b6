"""Prefix reuse through the front door: the same answers as without, and less to read."""

import datetime
import gc
import itertools
import threading
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rapid_integrations import (
    OutOfMemoryError,
    RapidEngine,
    SamplingParams,
    SpeculationConfig,
)
from rapid_integrations.cache import KVCache, distinct_bytes
from rapid_integrations.cache.prefix_cache import MIN_REUSED_TOKENS
from rapid_integrations.decoding import reader as sequence
from rapid_integrations.decoding.passes import run_alone
from rapid_integrations.models import loader
from rapid_integrations.models.causal_lm import MovesKeys
from tests.toys.budget import examples
from tests.toys.embedder import HashEmbedder
from tests.toys.models import byte_tokenizer, tiny_model, words
from tests.toys.prefix_requests import (
    DOCUMENT,
    FAMILIES,
    PARTS,
    SHORT,
    about,
    assert_entries_are_right,
    engine,
    expected,
    request_of,
)
from tests.toys.requests import read

LOGITS_TOLERANCE = 1e-3  # on logits of size 1 to 30


@pytest.mark.parametrize("drafter", [None, "qwen2"])
def test_the_second_question_reads_only_what_is_new(drafter):
    with engine(drafter=drafter) as first, engine(drafter=drafter, prefix_cache_bytes=0) as without:
        a = first.generate(about(DOCUMENT, "which words?"))
        assert a.stats.cached_prompt_tokens == a.stats.cached_drafter_tokens == 0
        b = first.generate(about(DOCUMENT, "how many?"))
        read = b.usage.prompt_tokens - b.stats.cached_prompt_tokens
        assert len(DOCUMENT) < b.stats.cached_prompt_tokens and read < 60
        again = first.generate(about(DOCUMENT, "how many?"))
        assert again.stats.cached_prompt_tokens == again.usage.prompt_tokens - 1
        assert again.stats.cached_drafter_tokens == again.usage.drafter_prompt_tokens - 1
        assert_entries_are_right(first)
        for completion, question in ((a, "which words?"), (b, "how many?"), (again, "how many?")):
            alone = without.generate(about(DOCUMENT, question))
            assert completion.token_ids == alone.token_ids
            assert alone.stats.cached_prompt_tokens == 0


def test_several_documents_are_kept():
    documents = [words(seed, 100) for seed in range(3)]
    with engine() as shared:
        for document in documents:
            shared.generate(about(document, "first?"))
        for document in documents:
            assert shared.generate(about(document, "second?")).stats.cached_prompt_tokens > len(document)


def test_a_chat_turn_reads_neither_the_document_nor_the_answer_again():
    turns = [{"role": "user", "content": about(DOCUMENT, "which words?")}]
    with engine() as shared, engine(prefix_cache_bytes=0) as without:
        for question in ("and then?", "why?", "is that all?"):
            answer = shared.generate(turns)
            assert answer.token_ids == without.generate(turns).token_ids
            turns += [{"role": "assistant", "content": answer.text}, {"role": "user", "content": question}]
            before = answer.usage.prompt_tokens
            if "\ufffd" not in answer.text:  # random models write bytes that are no text, and read back as others
                before += len(answer.text.encode())
            answer = shared.generate(turns)
            assert answer.stats.cached_prompt_tokens >= before - 2
            assert answer.token_ids == without.generate(turns).token_ids


def test_a_system_prompt_does_not_take_a_document_away():
    system = {"role": "system", "content": words(7, 30)}
    with engine() as shared:
        shared.generate([system, {"role": "user", "content": about(DOCUMENT, "which?")}])
        hello = shared.generate([system, {"role": "user", "content": "hello"}])
        assert len(system["content"]) < hello.stats.cached_prompt_tokens < len(DOCUMENT)
        back = shared.generate([system, {"role": "user", "content": about(DOCUMENT, "why?")}])
        assert back.stats.cached_prompt_tokens > len(DOCUMENT)


def test_logits_are_close_whatever_was_reused():
    with engine() as shared:
        ids = shared.explain(about(DOCUMENT, "which words?")).target_ids
        with shared._prefixes.request() as fresh:
            opened = fresh.open(shared.target, "target", ids, len(ids) + 10)
            run_alone(opened.prefill())
            expected = read(opened, [], keep=1)
            opened.commit([5])
        with shared._prefixes.request() as second:
            opened = second.open(shared.target, "target", ids, len(ids) + 10)
            assert opened.reused == len(ids) - 1
            torch.testing.assert_close(read(opened, [], keep=1), expected, rtol=0, atol=LOGITS_TOLERANCE)


def test_two_requests_over_one_document_at_once():
    with engine() as shared, engine(prefix_cache_bytes=0) as without:
        expected = [without.generate(about(DOCUMENT, q)).token_ids for q in ("a?", "b?")]
        shared.generate(about(DOCUMENT, "first?"))
        streams = [shared.stream(about(DOCUMENT, q)) for q in ("a?", "b?")]
        firsts = [next(stream) for stream in streams]
        outputs = [[first, *stream] for first, stream in zip(firsts, streams, strict=True)]
        assert [tuple(t for piece in pieces for t in piece.token_ids) for pieces in outputs] == expected
        a, b = (pieces[-1].stats.cached_prompt_tokens for pieces in outputs)
        assert a > len(DOCUMENT) and b > len(DOCUMENT)  # the second one copies what the first one has taken
        assert_entries_are_right(shared)


def test_a_request_in_the_middle_of_anothers_prefill_takes_what_is_read(monkeypatch):
    monkeypatch.setattr(sequence, "PREFILL_CHUNK", 64)
    with engine() as shared, engine(prefix_cache_bytes=0) as without:
        inner = []

        def ask_too(stage, done, total):
            if stage == "prefill target" and done >= 192 and not inner:
                inner.append(None)
                inner[0] = shared.generate(about(DOCUMENT, "b?"))

        outer = shared.generate(about(DOCUMENT, "a?"), on_progress=ask_too)
        for completion, question in ((outer, "a?"), (inner[0], "b?")):
            assert completion.token_ids == without.generate(about(DOCUMENT, question)).token_ids
        assert inner[0].stats.cached_prompt_tokens >= len(DOCUMENT)  # it waits until the other one has read it
        assert_entries_are_right(shared)


def run_by_turns(computations):
    """Resume each computation in turn until all have ended."""
    wanted = {steps: next(steps, None) for steps in computations}
    while wanted:
        for steps, rows in tuple(wanted.items()):
            try:
                wanted[steps] = steps.send([] if rows is None else rows.model.forward(rows.rows))
            except StopIteration:
                del wanted[steps]


@pytest.mark.parametrize("roles", [("target", "target"), ("target", "drafter")])
def test_prefills_at_once_share_the_work(roles, monkeypatch):
    monkeypatch.setattr(sequence, "PREFILL_CHUNK", 64)
    with engine() as shared:
        ids = shared.explain(about(DOCUMENT, "which words?")).target_ids
        forward, fed = type(shared.target).forward, []

        def counted(lm, rows):
            fed.extend(each.count for each in rows)
            return forward(lm, rows)

        monkeypatch.setattr(type(shared.target), "forward", counted)
        with shared._prefixes.request() as one, shared._prefixes.request() as two:
            both = [each.open(shared.target, role, ids, len(ids)) for each, role in zip((one, two), roles, strict=True)]
            run_by_turns([each.prefill() for each in both])
            assert [each.cache.length for each in both] == [len(ids) - 1] * 2
        alone = len(ids) - 1
        if roles[1] == "target":
            assert alone <= sum(fed) < alone + MIN_REUSED_TOKENS  # fewer tokens are not worth a copy
        else:  # what a drafter reads follows from its own prompt only
            assert sum(fed) == 2 * alone
        assert not shared._prefixes._running
        assert_entries_are_right(shared)


def test_threads_get_what_they_would_get_alone():
    documents = [words(seed, 60) for seed in range(2)]
    prompts = [about(documents[i % 2], f"question {i}?") for i in range(6)]
    with engine() as shared, engine(prefix_cache_bytes=0) as without:
        alone = [without.generate(prompt).token_ids for prompt in prompts]
        together = [[] for _ in prompts]

        def ask(number):
            for _ in range(2):
                together[number].append(shared.generate(prompts[number]).token_ids)

        threads = [threading.Thread(target=ask, args=(i,), daemon=True) for i in range(len(prompts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert together == [[tokens] * 2 for tokens in alone]
        assert_entries_are_right(shared)


def test_a_request_without_memory_frees_what_others_kept(monkeypatch):
    with engine() as shared:
        shared.generate(about(words(9, 100), "which?"))

        def fail(*args):
            raise torch.OutOfMemoryError("no memory left")

        monkeypatch.setattr(type(shared.target), "forward", fail)
        with pytest.raises(OutOfMemoryError, match="not enough memory for this request: no memory left"):
            shared.generate(about(DOCUMENT, "which?"))
        assert len(shared._prefixes.memory) == 0


def test_the_day_that_a_template_writes_is_pinned():
    dated = "{{ strftime_now('%d %b %Y, %H:%M:%S.%f') }}\n{% for m in messages %}{{ m['content'] }}{% endfor %}"
    model, tokenizer = tiny_model("llama", 0), byte_tokenizer(chat_template=dated)
    with RapidEngine.from_models(model, tokenizer, embedder=HashEmbedder(), sampling=SHORT) as shared:
        shared.generate(DOCUMENT)
        assert shared.generate(DOCUMENT + " and more").stats.cached_prompt_tokens > len(DOCUMENT)
    day = datetime.date(2024, 7, 26)
    with RapidEngine.from_models(model, tokenizer, embedder=HashEmbedder(), template_date=day) as pinned:
        assert pinned.explain("hello").target.text == "26 Jul 2024, 00:00:00.000000\nhello"


def test_clearing_and_closing():
    shared = engine()
    shared.generate(about(DOCUMENT, "which?"))
    shared.clear_prefix_cache()
    assert shared.reuses_prefixes and shared.generate(about(DOCUMENT, "which?")).stats.cached_prompt_tokens == 0
    stream = shared.stream(about(DOCUMENT, "which?"))
    next(stream)
    shared.close()
    stream.close()
    assert len(shared._prefixes.memory) == 0
    with engine(prefix_cache_bytes=0) as without:
        assert not without.reuses_prefixes


# --- any history ------------------------------------------------------------------------------------------------


class Stop(Exception):
    """Raised from the outside, in the middle of a request."""


REQUEST = st.fixed_dictionaries(
    {
        "parts": st.lists(st.integers(0, 3), min_size=1, max_size=3),
        "question": st.integers(0, 2),
        "law": st.sampled_from(["target", "augmented"]),
        "proposer": st.sampled_from(["drafter", "prompt_lookup", "none"]),
        "end": st.sampled_from(["finish", "finish", "close", "abandon", "fail in prefill", "fail in decoding"]),
        "after": st.integers(0, 3),
        "read ahead": st.booleans(),
        "rows of the target": st.booleans(),
    }
)


def perform(shared, request, monkeypatch):
    """Run a request to its end; return the tokens that came out, all of them where it finishes."""
    key = (tuple(request["parts"]), request["question"], request["law"], request["proposer"])
    prompt, speculation = request_of(*key)
    if request["read ahead"]:
        shared.read(" ".join(PARTS[part] for part in request["parts"]))
    moves = shared.self_speculation and isinstance(shared.target, MovesKeys)
    if request["rows of the target"] and request["law"] == "target" and moves:
        speculation = speculation.model_copy(update={"chunk_cache": "target"})
    tokens = []
    calls = iter(range(10**6))

    def progress(stage, done, total):
        if request["end"] == "fail in prefill" and stage.startswith("prefill") and next(calls) == request["after"]:
            raise Stop

    stream = shared.stream(prompt, speculation=speculation, on_progress=progress)
    forward = type(shared.target).forward

    def fails(model, *args):
        result = forward(model, *args)  # the cache holds the draft then
        if next(calls) == request["after"]:
            raise Stop
        return result

    try:
        for number, piece in enumerate(stream):
            tokens += piece.token_ids
            if request["end"] == "fail in decoding" and not number:
                monkeypatch.setattr(type(shared.target), "forward", fails)
            if number == request["after"] and request["end"] == "close":
                stream.close()
            if number == request["after"] and request["end"] == "abandon":
                break
    except Stop:
        pass
    finally:
        monkeypatch.undo()
    return key, tokens


@settings(max_examples=examples(25), derandomize=True)  # a tie between two tokens must not come by chance
@given(
    kind=st.sampled_from(sorted(FAMILIES)),
    requests=st.lists(REQUEST, min_size=2, max_size=6),
    budget=st.sampled_from(["auto", 700_000, 1_500_000]),
)
def test_any_history_of_requests_gives_the_answers_of_an_engine_without_reuse(kind, requests, budget):
    with engine(kind, FAMILIES[kind], prefix_cache_bytes=budget) as shared, pytest.MonkeyPatch.context() as patch:
        for request in requests:
            key, tokens = perform(shared, request, patch)
            wanted = expected(kind, *key)
            assert tuple(tokens) == wanted[: len(tokens)]
            if request["end"] == "finish":
                assert tuple(tokens) == wanted
            assert_entries_are_right(shared)


@pytest.mark.parametrize("kept", [0, 10**9])
def test_questions_at_once_hold_their_document_once(kept, monkeypatch):
    """Whether rows come from running requests or from ended ones, at no moment there is a second copy of them."""
    caches: weakref.WeakSet[KVCache] = weakref.WeakSet()
    original = KVCache.__init__

    def remembered(self, *args, **kwargs):
        original(self, *args, **kwargs)
        caches.add(self)

    monkeypatch.setattr(KVCache, "__init__", remembered)
    document, speculation = words(1, 170), SpeculationConfig(law="target", proposer="none")
    questions = [about(document, f"{word}?") for word in ("who", "what", "when", "where")]
    with engine(prefix_cache_bytes=0) as plain:
        expected = [plain.generate(each, speculation=speculation).text for each in questions]
    with engine(prefix_cache_bytes=kept or 1) as fresh:
        gc.collect()
        caches.clear()
        with fresh.stream(questions[0], speculation=speculation) as first:
            next(first)
            one = distinct_bytes(caches)
            tokens = len(first.prepared.target_ids)
        assert tokens > 900 and one >= tokens * fresh.target.kv_bytes_per_token
        for _ in range(2):
            streams = [fresh.stream(each, speculation=speculation) for each in questions]
            texts, peak = [""] * len(streams), 0
            for pieces in itertools.zip_longest(*streams):
                held = distinct_bytes(caches)
                if held > peak:  # of these, some may only wait for the collector
                    gc.collect()
                    held = distinct_bytes(caches)
                peak = max(peak, held)
                texts = [text + (piece.text if piece else "") for text, piece in zip(texts, pieces, strict=True)]
            assert texts == expected
            assert peak < 1.7 * one  # a tail takes three tiles at most; a second copy would make it more than 2
            del streams


@pytest.mark.parametrize("proposer", ["drafter", "magicdec", "skipped_layers"])
def test_a_drafter_that_is_all_but_the_target_uses_as_many_numbers(proposer):
    """It has the target's weights and text, so whether its tokens are certain hangs on the last bits of a pass."""
    model = tiny_model("llama", 0, num_hidden_layers=1)
    model.requires_grad_(False)
    model.model.layers[0].self_attn.o_proj.weight.mul_(0.05)
    asked = SpeculationConfig(law="target", proposer=proposer, draft_length=4, draft_recent=2048)
    with RapidEngine(loader.wrap(model, byte_tokenizer(), take_over=True), embedder=None) as engine:
        for seed in range(6):
            sampling = SamplingParams(max_new_tokens=24, temperature=0.7, seed=seed)
            alone = engine.generate(words(seed, 150), sampling=sampling, speculation=asked)
            assert alone.stats.acceptance_rate > 0.9
            again = engine.generate(words(seed, 150), sampling=sampling, speculation=asked)
            assert again.stats.cached_prompt_tokens > 0 and again.token_ids == alone.token_ids
