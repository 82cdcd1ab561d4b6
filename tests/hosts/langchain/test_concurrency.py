"""Streams that end early, models that fail, tasks that are cancelled, many callers: the next call works as before."""

import asyncio
import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from rapid_integrations.cache import KVCache
from tests.toys.event_loop import answered_while_the_loop_turns
from tests.toys.held_passes import HeldPasses, eventually
from tests.toys.langchain_llms import DOCUMENT, QUESTION, make_engine
from tests.toys.models import words

PROMPT = f"{DOCUMENT}\n\n{QUESTION}"


@pytest.fixture(scope="module")
def engine():
    """Keeps no prefixes: every cache that is alive belongs to a request."""
    return make_engine(prefix_cache_bytes=0)


def text(answer):
    return getattr(answer, "content", answer)


@pytest.fixture
def caches(monkeypatch):
    """The KV caches that are alive."""
    alive = weakref.WeakSet()
    init = KVCache.__init__

    def noting(self, *args, **kwargs):
        init(self, *args, **kwargs)
        alive.add(self)

    monkeypatch.setattr(KVCache, "__init__", noting)
    return alive


def free(caches):
    gc.collect()
    return not caches


class TestStreams:
    def test_closed_early(self, either, caches):
        expected = text(either.invoke(PROMPT))
        stream = either.stream(PROMPT)
        next(stream)
        stream.close()
        assert free(caches)
        assert text(either.invoke(PROMPT)) == expected

    def test_never_drained(self, either, caches):
        expected = text(either.invoke(PROMPT))
        held = either.stream(PROMPT)
        next(held)
        assert text(either.invoke(PROMPT)) == expected  # and nobody waits for it
        del held
        assert free(caches)

    def test_a_call_inside_a_loop_over_a_stream(self, either):
        expected = text(either.invoke(PROMPT))
        pieces = []
        for piece in either.stream(PROMPT):
            pieces.append(text(piece))
            assert text(either.invoke(PROMPT)) == expected
        assert "".join(pieces) == expected

    async def test_async_closed_early(self, either, caches):
        stream = either.astream(PROMPT)
        await anext(stream)
        await stream.aclose()
        await eventually(lambda: free(caches))
        assert text(await either.ainvoke(PROMPT)) == text(either.invoke(PROMPT))


class TestErrors:
    async def test_an_exception_in_the_model(self, either, engine, monkeypatch, caches):
        expected = text(either.invoke(PROMPT))

        def fail(*_):
            raise MemoryError("no memory left")

        with monkeypatch.context() as patch:
            patch.setattr(type(engine.target), "forward", fail)
            with pytest.raises(MemoryError, match="no memory left"):
                either.invoke(PROMPT)
            with pytest.raises(MemoryError):
                list(either.stream(PROMPT))
            with pytest.raises(MemoryError):
                await either.ainvoke(PROMPT)
            with pytest.raises(MemoryError):
                [piece async for piece in either.astream(PROMPT)]
        await eventually(lambda: free(caches))  # a worker thread may hold its frame for a moment
        assert text(either.invoke(PROMPT)) == expected


class TestAsync:
    @pytest.mark.parametrize("form", ["ainvoke", "astream", "abatch"])
    async def test_the_loop_keeps_turning(self, either, engine, form):
        calls = {
            "ainvoke": lambda: either.ainvoke(PROMPT),
            "astream": lambda: drain(either.astream(PROMPT)),
            "abatch": lambda: either.abatch([PROMPT, PROMPT]),
        }
        assert await answered_while_the_loop_turns(calls[form](), engine)

    @pytest.mark.parametrize("form", ["ainvoke", "astream"])
    async def test_a_cancelled_task(self, either, engine, monkeypatch, caches, form):
        call = either.ainvoke(PROMPT) if form == "ainvoke" else drain(either.astream(PROMPT))
        passes = HeldPasses(engine, monkeypatch)
        task = asyncio.create_task(call)
        await eventually(passes.inside.is_set)
        assert caches
        task.cancel()
        passes.let_go()  # the cancelled task waits for its pass
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda: free(caches))
        assert text(await either.ainvoke("hello"))


class TestManyAtOnce:
    PROMPTS = [f"{words(seed, 90)}\n\nquestion {seed}?" for seed in range(8)]

    def test_threads(self, either):
        alone = [text(either.invoke(prompt)) for prompt in self.PROMPTS]
        with ThreadPoolExecutor(8) as pool:
            assert [text(answer) for answer in pool.map(either.invoke, self.PROMPTS)] == alone

    async def test_tasks(self, either):
        alone = [text(either.invoke(prompt)) for prompt in self.PROMPTS]
        together = await asyncio.gather(*(either.ainvoke(prompt) for prompt in self.PROMPTS))
        assert [text(answer) for answer in together] == alone


async def drain(stream):
    return [piece async for piece in stream]
