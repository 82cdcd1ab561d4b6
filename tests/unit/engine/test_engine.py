"""The front door on tiny models: requests, errors, streams, threads."""

import asyncio
import gc
import pickle
import threading
import time
from functools import partial

import pytest

from rapid_integrations import (
    Completion,
    ConfigurationError,
    ContextOverflowError,
    HostPartError,
    Prompt,
    PromptError,
    RapidEngine,
    SamplingParams,
    SpeculationConfig,
    StructuredOutput,
    VocabularyMismatchError,
)
from tests.toys.embedder import HashEmbedder
from tests.toys.engines import DOCUMENT, PROMPT, SHORT, engine
from tests.toys.errors import coded
from tests.toys.leaks import settled
from tests.toys.models import byte_tokenizer, tiny_model, words


@pytest.fixture(scope="module")
def shared():
    return engine()


class Failing:
    """An `on_progress` that fails at a stage."""

    def __init__(self, stage):
        self.stage = stage

    def __call__(self, stage, done, total):
        if stage == self.stage:
            raise RuntimeError("from outside")


# --- requests -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("proposer", ["drafter", "prompt_lookup", "none"])
@pytest.mark.parametrize("law", ["target", "augmented"])
def test_generate_joins_stream(shared, law, proposer):
    speculation = SpeculationConfig(law=law, proposer=proposer)
    pieces = list(shared.stream(PROMPT, speculation=speculation))
    whole = shared.generate(PROMPT, speculation=speculation)
    assert "".join(piece.text for piece in pieces) == whole.text
    assert tuple(t for piece in pieces for t in piece.token_ids) == whole.token_ids
    assert whole.text == shared.vocabulary.decode_finished(whole.token_ids)
    assert whole.usage.completion_tokens == len(whole.token_ids) == whole.stats.tokens
    assert whole.stats.law == law and whole.stats.proposer == proposer
    assert [piece.finish_reason for piece in pieces[:-1]] == [None] * (len(pieces) - 1)


def test_the_last_piece_carries_the_sources_and_the_whole_has_them(shared):
    *others, last = shared.stream(PROMPT)
    whole = shared.generate(PROMPT)
    assert whole.sources == last.sources == shared._sources.find((DOCUMENT,), "which words?", whole.text)
    assert all(piece.sources == () for piece in others)
    assert shared.generate("hello there").sources == ()  # without a context


async def test_an_awaited_answer_has_its_sources_too(shared):
    # What the model says is chosen by it, so the document is made to say the same.
    said = (await shared.agenerate(PROMPT)).text
    stream = await shared.astream(PROMPT)
    stream._stream._sources_of = partial(shared._sources.find, (f"Before it. {said}. After it.",), "which words?")
    pieces = [piece async for piece in stream]
    (source, *_) = pieces[-1].sources
    assert said[source.answer_start : source.answer_end] and source.text in f"Before it. {said}. After it."
    assert all(piece.sources == () for piece in pieces[:-1])


def test_the_drafter_reads_the_same_text_with_the_spans_replaced(shared):
    prepared = shared.explain(PROMPT)
    kept = prepared.compression.texts[0]
    assert 0 < len(kept) < len(DOCUMENT)
    assert prepared.drafter.text == prepared.target.text.replace(DOCUMENT, kept)
    assert all(DOCUMENT[chunk.start : chunk.end] == chunk.text for chunk in prepared.retrieved)
    completion = shared.generate(PROMPT)
    assert completion.retrieved == prepared.retrieved
    assert completion.usage.prompt_tokens == len(prepared.target_ids)
    assert completion.usage.drafter_prompt_tokens == len(prepared.drafter_ids)


def test_strings_messages_and_prompts_are_one_request(shared):
    as_messages = [{"role": "user", "content": PROMPT}]
    assert shared.generate(as_messages).token_ids == shared.generate(PROMPT).token_ids
    long = words(2, 600)
    found = shared.explain(f"Context: {long}\n\nQuestion: which words?")
    assert found.target.segmentation == "delimiters" and found.target.contexts == (long,)
    plain = shared.generate("hello there")
    assert plain.stats.segmentation == "plain" and plain.stats.drafter is None


def test_a_raw_prompt_gets_no_template_but_a_bos():
    tokenizer = byte_tokenizer(add_bos=True)
    with RapidEngine.from_models(tiny_model("llama", 0), tokenizer, sampling=SHORT) as raw:
        ids = raw.explain("hello", apply_chat_template=False).target_ids
        assert ids == tokenizer("hello").input_ids and ids.count(tokenizer.bos_token_id) == 1


def test_a_context_too_short_to_compress_is_read_whole(shared):
    short = Prompt.from_context("only a few words", "which?")
    prepared = shared.explain(short)
    assert prepared.drafter_ids == prepared.target_ids and not prepared.compression.shortened
    completion = shared.generate(short)
    assert completion.stats.law == "target" and completion.stats.proposer == "retrieval_tree"
    kept = shared.generate(short, speculation=SpeculationConfig(law="target", proposer="none"))
    assert completion.token_ids == kept.token_ids


def test_the_embedder_is_left_alone_where_no_drafter_is_needed():
    embedder = HashEmbedder()
    with engine(embedder=embedder) as quiet:
        quiet.generate(PROMPT, speculation=SpeculationConfig(law="target", proposer="prompt_lookup"))
        assert not embedder.embedded and not embedder.queries
        quiet.generate(PROMPT)
        first = len(embedder.embedded)
        quiet.generate(Prompt.from_context(DOCUMENT, "another question"))
        assert first > 0 and len(embedder.embedded) == first and len(embedder.queries) == 2


@pytest.mark.parametrize(
    ("layers", "law", "eta"), [(None, "augmented", "auto"), (4, "augmented", "auto"), (1, "target", 0.0)]
)
def test_the_law_follows_the_drafters_size(layers, law, eta):
    drafter = None if layers is None else tiny_model("llama", 5, num_hidden_layers=layers)
    with engine(drafter_model=drafter) as sized:
        stats = sized.generate(PROMPT).stats
        published = sized.generate(PROMPT, speculation=SpeculationConfig(law="paper")).stats
    assert (stats.law, stats.eta) == (law, eta)
    assert published.eta == (40.0 if layers == 4 else 10.0)


def test_an_automatic_strength_knows_whether_anything_relevant_was_found():
    automatic = SpeculationConfig(eta="auto")
    answers = {}
    for threshold in (-1.0, 0.999):  # no scale: taken to be relevant; nothing comes near: irrelevant
        with engine(embedder=HashEmbedder(threshold=threshold)) as asked:
            answers[threshold] = asked.generate(PROMPT, speculation=automatic)
            plain = asked.generate(PROMPT, speculation=SpeculationConfig(law="target"))
    assert answers[0.999].stats.law == "augmented" and answers[0.999].stats.eta == "auto"
    assert answers[0.999].token_ids == plain.token_ids != answers[-1.0].token_ids


@pytest.mark.parametrize("draft_length", [3, "auto"])
def test_a_seed_repeats_a_sample(shared, draft_length):
    speculation = SpeculationConfig(draft_length=draft_length)
    samples = {
        seed: [
            shared.generate(
                PROMPT,
                sampling=SamplingParams(temperature=1.0, seed=seed, max_new_tokens=20),
                speculation=speculation,
            ).token_ids
            for _ in range(3)
        ]
        for seed in (1, 2)
    }
    assert len(set(samples[1])) == 1 and samples[1] != samples[2]


def test_every_sampling_setting_is_honoured(shared):
    wild = SamplingParams(temperature=3.0, top_k=1, seed=0, max_new_tokens=12)
    greedy_at_t = shared.generate(PROMPT, sampling=wild, speculation=SpeculationConfig(law="target"))
    assert greedy_at_t.token_ids == shared.generate(PROMPT, speculation=SpeculationConfig(law="target")).token_ids
    assert len(shared.generate(PROMPT, sampling=SamplingParams(max_new_tokens=1)).token_ids) == 1


@pytest.mark.parametrize("proposer", ["drafter", "prompt_lookup", "none"])
def test_stop_strings_end_the_text(shared, proposer):
    length = 40
    text = shared.generate(PROMPT, sampling=SamplingParams(max_new_tokens=length)).text
    stop = next(text[i : i + 2] for i in range(2, len(text) - 3) if "\ufffd" not in text[i : i + 2])
    completion = shared.generate(
        PROMPT,
        sampling=SamplingParams(max_new_tokens=length, stop=stop),
        speculation=SpeculationConfig(proposer=proposer, draft_length=5),
    )
    assert completion.finish_reason == "stop" and completion.text == text[: text.find(stop)]


# --- errors ---------------------------------------------------------------------------------------------------------


def test_over_the_context_window_both_numbers_and_the_way_out(shared):
    prompt = shared.explain(PROMPT)
    room = shared.target.context_window - len(prompt.target_ids)
    with pytest.raises(ContextOverflowError, match=f"max_new_tokens <= {room}") as caught:
        shared.stream(PROMPT, sampling=SamplingParams(max_new_tokens=room + 1))
    assert caught.value.prompt_tokens == len(prompt.target_ids)
    assert caught.value.context_window == shared.target.context_window == 2048
    with pytest.raises(ContextOverflowError, match="Shorten the document"):
        shared.generate(Prompt.from_context(words(1, 900), "which?"))


def test_what_is_too_long_is_what_the_user_is_told_to_shorten(shared):
    document, window = words(1, 60), shared.target.context_window
    with pytest.raises(ContextOverflowError, match=r"are not its documents': shorten the question") as caught:
        shared.stream(Prompt.from_context(document, words(2, 700)))
    assert window < caught.value.outside == caught.value.prompt_tokens - len(document)  # a byte is a token
    assert pickle.loads(pickle.dumps(caught.value)).outside == caught.value.outside
    with pytest.raises(ContextOverflowError, match="Shorten the prompt by at least"):
        shared.stream(Prompt.without_context(words(1, 900)))
    with pytest.raises(ContextOverflowError, match="not its documents'.*all in all by about"):
        shared.stream(Prompt.from_context(document, words(2, 200_000)))
    with pytest.raises(ContextOverflowError, match="Shorten the document by about"):
        shared.stream(Prompt.from_context(words(2, 200_000), "which?"))


def test_time_in_which_nobody_asks_for_the_first_piece_is_nobodys(shared):
    begin = time.perf_counter()
    stream = shared.stream(PROMPT)
    prepared = time.perf_counter() - begin
    time.sleep(0.3)
    begin = time.perf_counter()
    *_, last = stream
    stats = last.stats
    assert stats.compress_s < stats.time_to_first_token_s <= prepared + time.perf_counter() - begin


@pytest.mark.parametrize(
    "wrong",
    [
        {"trace": True, "trace_candidates": 0},
        {"trace": True, "trace_candidates": -1},
        {"trace": True, "trace_candidates": "3"},
        {"on_progress": True},
        {"compressor": 5},
    ],
    ids=str,
)
def test_what_would_fail_in_the_middle_of_an_answer_is_refused_before_it(shared, wrong):
    with pytest.raises(ConfigurationError, match=[*wrong][-1], check=coded("configuration.wrong_value")):
        shared.stream(PROMPT, **wrong)


@pytest.mark.parametrize("kind", [StopIteration, StopAsyncIteration])
@pytest.mark.parametrize("at", ["embed", "prefill target"])
def test_an_iterator_that_ends_in_a_callback_ends_no_answer(kind, at):
    def stop(stage, done, total):
        if stage == at:
            raise kind

    with engine() as fresh:
        with pytest.raises(HostPartError, match=kind.__name__) as caught:
            fresh.generate(PROMPT, on_progress=stop)
        assert isinstance(caught.value.__cause__, kind)
        with pytest.raises(HostPartError):
            asyncio.run(fresh.agenerate(PROMPT, on_progress=stop))
        assert fresh.generate(PROMPT).token_ids


def test_an_answer_that_was_closed_from_within_is_no_whole_one(shared):
    streams = []
    streams.append(shared.stream("the dog", on_progress=lambda *_: streams[0].close()))
    with pytest.raises(ValueError, match="has not ended"):
        Completion.join(list(streams[0]))


def test_earlier_calls_of_tools_that_the_template_does_not_write_are_refused(shared):
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    history = [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "sunny"},
    ]
    for content in (None, "", "I look."):
        history[1]["content"] = content
        with pytest.raises(PromptError, match="message 2 calls tools", check=coded("prompt.no_tool_calls")):
            shared.stream(history)
    del history[1]["tool_calls"]
    assert shared.generate(history).token_ids


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"speculation": SpeculationConfig(proposer="drafer")},
            "there are: auto, drafter, draft_lm, hybrid, prompt_look",
        ),
        ({"speculation": SpeculationConfig(law="paper", proposer="prompt_lookup")}, "drafts of the drafter only"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_runs(shared, options, said):
    with pytest.raises(ConfigurationError, match=said):
        shared.stream(PROMPT, **options)


def test_an_empty_prompt_or_question_is_refused(shared):
    for prompt in ("", "  \n", [{"role": "user", "content": ""}]):
        with pytest.raises(PromptError, match="empty"):
            shared.stream(prompt)


def test_a_chat_without_template_is_refused():
    tokenizer = byte_tokenizer(chat_template=None)
    with RapidEngine.from_models(tiny_model("llama", 0), tokenizer, sampling=SHORT) as raw:
        with pytest.raises(PromptError, check=coded("prompt.no_chat_template")):
            raw.stream([{"role": "user", "content": "hello"}])
        with pytest.raises(ConfigurationError, check=coded("configuration.no_chat_template")):
            raw.stream("hello", apply_chat_template=True)
        assert raw.generate("hello").token_ids


def test_a_drafter_with_another_tokenizer_is_refused():
    other = byte_tokenizer(merges=[("t", "h")])
    with pytest.raises(VocabularyMismatchError, match="one tokenizer"):
        engine(drafter_model=tiny_model("llama", 1, vocab_size=300), drafter_tokenizer=other)


# --- streams --------------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("budget", [0, 150_000, 10**9])  # nothing, one of the two caches, both
def test_closing_a_stream_gives_its_caches_to_the_prefix_cache_within_its_budget(caches, budget):
    with engine(prefix_cache_bytes=budget) as fresh:
        gc.collect()
        caches.clear()  # the one that checked the model
        stream = fresh.stream(PROMPT)
        next(stream)
        assert len(caches) == 2 and fresh._prefixes.memory.nbytes == 0
        stream.close()
        gc.collect()
        assert sum(cache.nbytes for cache in caches) == fresh._prefixes.memory.nbytes <= budget
        assert len(caches) == {0: 0, 150_000: 1, 10**9: 2}[budget]
        with pytest.raises(StopIteration):
            next(stream)
        stream.close()
    gc.collect()
    assert len(caches) == 0


def test_a_document_that_is_too_long_to_be_kept_is_told_once_if_nobody_chose_the_size(monkeypatch):
    with engine(prefix_cache_bytes=100_000) as chosen:
        chosen.generate(PROMPT)  # a warning would be an error
    monkeypatch.setattr("rapid_integrations.engine.engine.memory_budget", lambda *_: 100_000)
    with engine(prefix_cache_bytes="auto") as small:
        with pytest.warns(RuntimeWarning, match=r"may keep 0\.00 GiB: the next question .* prefix_cache_bytes"):
            small.generate(PROMPT)
        small.generate(PROMPT)  # a warning would be an error


def test_leaving_the_loop_or_an_error_in_it_does_so_too(caches):
    with engine(prefix_cache_bytes=0) as fresh:
        with pytest.raises(KeyboardInterrupt), fresh.stream(PROMPT) as stream:
            next(stream)
            raise KeyboardInterrupt
        for _ in fresh.stream(PROMPT):
            break
        assert settled(lambda: len(caches), 0) == 0  # nobody waits for the worker here
        assert fresh.generate(PROMPT).token_ids


@pytest.mark.long
@pytest.mark.parametrize("stage", ["embed", "prefill target", "prefill drafter"])
def test_an_interrupted_request_leaves_nothing_behind(caches, stage):
    with engine() as fresh:
        expected = fresh.generate(PROMPT).token_ids
    with engine() as fresh:
        with pytest.raises(RuntimeError, match="from outside"):
            fresh.generate(PROMPT, on_progress=Failing(stage))
        assert fresh.generate(PROMPT).token_ids == expected
    del fresh
    gc.collect()
    assert len(caches) == 0


def test_progress_reaches_its_total(shared):
    seen = {}
    shared.generate(PROMPT, on_progress=lambda stage, done, total: seen.__setitem__(stage, (done, total)))
    assert {"prefill target", "prefill drafter"} <= seen.keys()
    assert all(done == total for done, total in seen.values())


# --- several at once ------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("count", [2, 8])
def test_threads_get_what_they_would_get_alone(shared, count):
    prompts = [Prompt.from_context(words(seed, 90), f"question {seed}?") for seed in range(count)]
    alone = [shared.generate(prompt).token_ids for prompt in prompts]
    together = [None] * len(prompts)

    def ask(number):
        together[number] = shared.generate(prompts[number]).token_ids

    threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert together == alone


def test_nobody_waits_for_a_stream_held_open(shared):
    expected = shared.generate(PROMPT).token_ids
    undrained = shared.stream(PROMPT)
    next(undrained)
    for piece in (loop := shared.stream(PROMPT)):
        assert shared.generate(PROMPT).token_ids == expected  # a call inside a loop over a stream
        if piece.finish_reason is None:
            loop.close()
            break
    undrained.close()


def test_a_model_that_fails_in_one_request_serves_the_next(shared, monkeypatch):
    expected = shared.generate(PROMPT).token_ids
    forward = type(shared.target).forward
    calls = iter(range(100))

    def sometimes(self, *args):
        if next(calls) == 3:
            raise MemoryError("no memory left")
        return forward(self, *args)

    monkeypatch.setattr(type(shared.target), "forward", sometimes)
    with pytest.raises(MemoryError):
        shared.generate(PROMPT)
    monkeypatch.undo()
    assert shared.generate(PROMPT).token_ids == expected


# --- documents that do not answer ------------------------------------------------------------------------------------

SILENT = SamplingParams(max_new_tokens=12, abstain_below=1.0, abstain_text="Not in here.")


def no_pass(*_, **__):
    raise AssertionError("no model was to run")


@pytest.mark.parametrize("law", ["target", "augmented"])
@pytest.mark.parametrize("proposer", ["hybrid", "none"])
def test_an_answer_is_withheld_before_any_model_runs(shared, monkeypatch, law, proposer):
    speculation = SpeculationConfig(law=law, proposer=proposer)
    with monkeypatch.context() as patch:
        patch.setattr(shared.target, "forward", no_pass)
        (piece,) = shared.stream(PROMPT, sampling=SILENT, speculation=speculation)
    assert (piece.text, piece.token_ids, piece.finish_reason, piece.sources) == ("Not in here.", (), "abstained", ())
    assert 0.0 <= piece.stats.answerable < 1.0 and piece.usage.completion_tokens == 0
    assert piece.stats.time_to_first_token_s >= piece.stats.compress_s > 0 == piece.stats.decode_s
    assert shared.generate(PROMPT, sampling=SHORT, speculation=speculation).finish_reason != "abstained"


def test_the_score_is_the_same_whoever_asks(shared):
    always = SILENT.model_copy(update={"abstain_below": 0.0})
    scores = {
        shared.generate(
            PROMPT, sampling=always, speculation=SpeculationConfig(law=law, proposer=proposer)
        ).stats.answerable
        for law, proposer in (("target", "none"), ("target", "drafter"), ("augmented", "hybrid"))
    }
    assert len(scores) == 1 and shared.explain(PROMPT).answerable in scores


def test_a_document_that_stays_whole_is_searched_only_if_the_request_may_abstain(shared):
    prompt = Prompt.from_context("the cat sat", "which words?")
    assert shared.generate(prompt).stats.answerable is None
    withheld = shared.generate(prompt, sampling=SILENT)
    assert withheld.finish_reason == "abstained" and withheld.stats.answerable < 1.0


def test_a_prompt_without_documents_and_a_required_form_are_always_answered(shared):
    assert shared.generate("the cat", sampling=SILENT).finish_reason != "abstained"
    form = SILENT.model_copy(update={"structured": StructuredOutput(regex="[ab]{2}")})
    answer = shared.generate(PROMPT, sampling=form)
    assert answer.finish_reason != "abstained" and len(answer.text) == 2


def test_a_trace_of_an_answer_that_was_withheld_is_empty(shared):
    answer = shared.generate(PROMPT, sampling=SILENT, trace=True)
    assert answer.text == "Not in here." and answer.trace.rounds == ()
