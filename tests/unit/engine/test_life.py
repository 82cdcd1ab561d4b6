"""After `close` nothing is answered any more; what runs is ended; others that share the engine go on."""

import asyncio
import gc
import threading
import weakref

import pytest

import langchain_rapid
import llama_index_rapid
from rapid_integrations import Chat, EngineClosedError, Prompt, RapidEngine, SamplingParams
from tests.toys.embedder import HashEmbedder
from tests.toys.host_llms import CALLS, SMALL, ask, build
from tests.toys.models import byte_tokenizer, tiny_model, words

PROMPT = Prompt.from_context(words(1, 80), "which words are there?")
LONG = SamplingParams(max_new_tokens=400)

ENGINE_CALLS = {
    "generate": lambda engine: engine.generate("hello"),
    "stream": lambda engine: engine.stream("hello"),
    "explain": lambda engine: engine.explain(PROMPT),
    "count_tokens": lambda engine: engine.count_tokens("hello"),
    "clear_prefix_cache": lambda engine: engine.clear_prefix_cache(),
    "fingerprints": lambda engine: engine.fingerprints(),
    "alone": lambda engine: engine.alone(None),
    "target": lambda engine: engine.target,
    "self_speculation": lambda engine: engine.self_speculation,
    "agenerate": lambda engine: asyncio.run(engine.agenerate("hello")),
    "astream": lambda engine: asyncio.run(engine.astream("hello")),
}


@pytest.mark.parametrize("name", ENGINE_CALLS)
def test_every_call_of_a_closed_engine(engine, name):
    engine.close()
    engine.close()
    with pytest.raises(EngineClosedError, match="has been closed"):
        ENGINE_CALLS[name](engine)


@pytest.mark.in_turn(3)
@pytest.mark.parametrize("number", range(10))
def test_every_call_of_a_closed_llm(make, host, number):
    calls = list(CALLS["llama" if host is llama_index_rapid.RapidLLM else "langchain"].items())
    if number >= len(calls):
        pytest.skip("as many as that host has")
    name, call = calls[number]
    sharer = make()
    with make() as llm:
        call(llm)
    llm.close()
    with pytest.raises(EngineClosedError, match=f"this {host.__name__} has been closed"):
        call(llm)
    call(sharer)  # goes on
    assert repr(llm)


async def test_async_with(make):
    async with make() as llm:
        engine = llm.rapid_engine
    assert engine.closed
    await llm.aclose()
    async with RapidEngine.from_models(tiny_model("llama", 0), byte_tokenizer()) as engine:
        await engine.agenerate("hello", sampling=SamplingParams(max_new_tokens=2))
    assert engine.closed


# --- what runs when the engine is closed ------------------------------------------------------------------------------


def test_a_stream_that_waits_to_be_read(engine):
    stream = engine.stream(PROMPT, sampling=LONG)
    first = next(stream)
    assert first.finish_reason is None
    engine.close()
    with pytest.raises(EngineClosedError):
        next(stream)
    with pytest.raises(EngineClosedError):  # no answer that merely looks complete
        list(stream)
    stream.close()


def test_a_stream_that_had_ended_stays_ended(engine):
    stream = engine.stream(PROMPT, sampling=SamplingParams(max_new_tokens=2))
    assert list(stream)[-1].finish_reason is not None
    engine.close()
    assert list(stream) == []


def test_requests_of_other_threads_end(engine):
    ended, running, before = [], threading.Semaphore(0), set(threading.enumerate())

    def run():
        try:
            with engine.stream(PROMPT, sampling=LONG) as stream:
                for _ in stream:
                    running.release()
        except EngineClosedError as error:
            ended.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    running.acquire()
    engine.close()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads) and len(ended) == 3
    assert set(threading.enumerate()) <= before


async def test_requests_of_other_tasks_end(engine):
    async def run():
        with pytest.raises(EngineClosedError):
            await engine.agenerate(PROMPT, sampling=LONG)

    tasks = [asyncio.create_task(run()) for _ in range(3)]
    await asyncio.sleep(0.05)
    await asyncio.wait_for(engine.aclose(), 20)
    await asyncio.wait_for(asyncio.gather(*tasks), 20)


def test_closed_while_it_reads(engine):
    """The caller's own progress callback closes it: nothing waits for itself."""

    def report(stage, done, total):
        if stage.startswith("prefill"):
            engine.close()

    with pytest.raises(EngineClosedError):
        engine.generate(PROMPT, sampling=LONG, on_progress=report)
    assert engine.closed


def test_closing_frees_models_and_caches():
    model = tiny_model("llama", 0)
    own = model.config._attn_implementation
    engine = RapidEngine.from_models(model, byte_tokenizer(), embedder=HashEmbedder(), compression=SMALL)
    stream = engine.stream(PROMPT, sampling=LONG)
    next(stream)
    lm = weakref.ref(engine.target)
    engine.close()
    gc.collect()
    assert lm() is None and model.config._attn_implementation == own
    del stream


@pytest.mark.long
def test_a_chat_over_a_closed_engine(engine):
    chat = Chat(engine, words(1, 80))
    assert "".join(chunk.text for chunk in chat.ask("which words?")) is not None
    engine.close()
    with pytest.raises(EngineClosedError):
        chat.ask("and why?")


def test_an_engine_of_one_model_ends_with_its_own(engine):
    alone = engine.alone(engine.target)
    alone.close()  # not its to close
    assert alone.generate("hello", sampling=SamplingParams(max_new_tokens=1)).token_ids
    engine.close()
    with pytest.raises(EngineClosedError):
        alone.generate("hello")


def test_a_llm_that_failed_to_load_can_be_closed(folder):
    llm = build(langchain_rapid.RapidLLM, folder)
    assert ask(llm) is not None
    with pytest.raises(ZeroDivisionError), llm:
        raise ZeroDivisionError
    with pytest.raises(EngineClosedError):
        ask(llm)
