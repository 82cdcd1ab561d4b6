"""Texts that a server keeps for the drafters of other machines."""

import asyncio

import pytest
import torch

from rapid_integrations import (
    ConfigurationError,
    ContextOverflowError,
    EngineClosedError,
    OutOfMemoryError,
    RemoteError,
)
from rapid_integrations.server.remote.texts import Call, Opening, Texts
from tests.toys.errors import coded
from tests.toys.leaks import settled
from tests.toys.remote_drafters import server_engine

PROMPT = list(range(1, 40))


def opening(**changes):
    return Opening(**{"token_ids": PROMPT, "new_tokens": 16, "vocab_size": 260, "best": 5, **changes})


@pytest.fixture(scope="module")
def engine():
    with server_engine() as built:
        yield built


def test_a_draft_that_goes_another_way_is_read_from_there(engine):
    async def run():
        texts = Texts(engine)
        one, _ = await texts.open(opening())
        other, _ = await texts.open(opening())
        first = await texts.read(one, Call(ahead=4))
        assert len(first.written) == 4 and len(first.rows) == len(first.outside) == 5
        wrong = [first.written[0], 7, 8]
        changed = await texts.read(one, Call(draft=wrong, have=2))
        alone = await texts.read(other, Call(draft=wrong, have=2))
        torch.testing.assert_close(changed.rows, alone.rows)
        assert len(changed.rows) == 2
        for name in (one, other):
            again = await texts.read(name, Call(commit=wrong, draft=[9], ahead=1))
            assert len(again.rows) == 3
        texts.close(one)
        texts.close(other)
        texts.close("nobody's")
        assert len(texts) == 0

    asyncio.run(run())
    assert settled(lambda: engine.running_requests, 0) == 0


def test_calls_are_answered_in_order(engine):
    async def run():
        texts = Texts(engine)
        name, _ = await texts.open(opening())
        calls = [Call(commit=[5]), Call(commit=[6]), Call(commit=[7], ahead=2)]
        together = await asyncio.gather(*(texts.read(name, call) for call in calls))
        other, _ = await texts.open(opening())
        await texts.read(other, Call(commit=[5, 6]))
        last = await texts.read(other, Call(commit=[7], ahead=2))
        assert together[-1].written == last.written
        texts.close(name)
        texts.close(other)

    asyncio.run(run())


def test_a_text_that_nobody_asks_about_is_forgotten(engine):
    async def run():
        texts = Texts(engine, idle_s=0.1)
        name, _ = await texts.open(opening())
        await asyncio.sleep(0.4)
        assert len(texts) == 0
        with pytest.raises(RemoteError, match="has no text", check=coded("remote.answer")):
            await texts.read(name, Call())

    asyncio.run(run())
    assert settled(lambda: engine.running_requests, 0) == 0


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ({"token_ids": [300]}, ConfigurationError),
        ({"token_ids": [-1]}, ConfigurationError),
        ({"token_ids": []}, ConfigurationError),
        ({"vocab_size": 261}, ConfigurationError),
        ({"vocab_size": 0}, ConfigurationError),
        ({"new_tokens": 0}, ConfigurationError),
        ({"new_tokens": 5000}, ContextOverflowError),
    ],
    ids=str,
)
def test_what_cannot_be_opened(engine, wrong, kind):
    async def run():
        texts = Texts(engine)
        with pytest.raises(kind):
            await texts.open(opening(**wrong))
        assert len(texts) == 0

    asyncio.run(run())


@pytest.mark.parametrize(
    "wrong",
    [{"draft": [300]}, {"commit": [-1]}, {"have": -1}, {"ahead": 17}, {"draft": [1] * 17}, {"commit": [1] * 17}],
    ids=str,
)
def test_what_cannot_be_read(engine, wrong):
    async def run():
        texts = Texts(engine)
        name, _ = await texts.open(opening())
        with pytest.raises(ConfigurationError):
            await texts.read(name, Call(**wrong))
        texts.close(name)

    asyncio.run(run())
    assert settled(lambda: engine.running_requests, 0) == 0


def test_there_is_no_room():
    async def run():
        with server_engine(kv_cache_bytes=1000) as small:
            with pytest.raises(OutOfMemoryError):
                await Texts(small).open(opening())

    asyncio.run(run())


def test_the_engine_is_closed_meanwhile():
    async def run():
        engine = server_engine()
        texts = Texts(engine)
        name, _ = await texts.open(opening())
        waits = asyncio.ensure_future(texts.read(name, Call(ahead=16)))
        await asyncio.sleep(0)
        engine.close()
        with pytest.raises(EngineClosedError):
            await waits
            await texts.read(name, Call())
        with pytest.raises(EngineClosedError):
            await texts.open(opening())

    asyncio.run(run())
