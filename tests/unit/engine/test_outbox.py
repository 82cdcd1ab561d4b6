"""The queue between the worker and one caller, who is a thread or a task."""

import asyncio
import threading

import pytest

from rapid_integrations.engine.outbox import ROOM, Ended, Outbox, Progress
from rapid_integrations.outputs import CompletionChunk
from tests.toys.jobs import until

PIECE = CompletionChunk(text="x", token_ids=(1,))
PROGRESS = Progress("prefill target", 1, 2)


@pytest.fixture
def calls():
    return []


@pytest.fixture
def outbox(calls):
    return Outbox(lambda: calls.append("room"))


def test_events_come_in_order_and_the_end_stays(outbox):
    ended = Ended(None)
    for event in (PROGRESS, PIECE, ended):
        outbox.put(event)
    assert [outbox.get() for _ in range(4)] == [PROGRESS, PIECE, ended, ended]


def test_nothing_comes_behind_the_end(outbox):
    first = Ended(ValueError("first"))
    for event in (first, PIECE, Ended(None)):
        outbox.put(event)
    assert outbox.ended and outbox.get() is first and outbox.get() is first


def test_it_is_full_of_pieces_alone_and_says_when_there_is_room(outbox, calls):
    for number in range(ROOM):
        assert not outbox.full
        outbox.put(PIECE)
        outbox.put(Progress("prefill target", number, ROOM))
    assert outbox.full and calls == []
    assert outbox.get() is PIECE
    assert not outbox.full and calls == ["room"]
    for _ in range(2 * ROOM - 1):
        outbox.get()
    assert calls == ["room"]  # it was full once


def test_a_thread_waits_for_an_event(outbox):
    found = []
    reader = threading.Thread(target=lambda: found.append(outbox.get()))
    reader.start()
    outbox.put(PIECE)
    reader.join(30)
    assert found == [PIECE]


async def test_a_task_waits_for_an_event_of_another_thread(outbox):
    reader = asyncio.create_task(outbox.aget())
    while not outbox._waiters:
        await asyncio.sleep(0)
    assert not reader.done()
    threading.Thread(target=outbox.put, args=(PIECE,)).start()
    assert await reader is PIECE


async def test_a_cancelled_task_takes_nothing(outbox):
    reader = asyncio.create_task(outbox.aget())
    while not outbox._waiters:
        await asyncio.sleep(0)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    outbox.put(PIECE)
    assert await outbox.aget() is PIECE


async def test_waiting_for_the_end_takes_nothing(outbox):
    outbox.put(PIECE)
    waiting = asyncio.create_task(outbox.await_ended())
    thread = threading.Thread(target=outbox.wait_until_ended)
    thread.start()
    await asyncio.sleep(0)
    outbox.put(PROGRESS)
    await asyncio.sleep(0.01)
    assert not waiting.done() and thread.is_alive()
    outbox.put(Ended(None))
    await waiting
    until(lambda: not thread.is_alive())
    assert [await outbox.aget() for _ in range(3)] == [PIECE, PROGRESS, Ended(None)]


def test_a_loop_that_was_closed_meanwhile_does_no_harm(outbox):
    loop = asyncio.new_event_loop()

    async def wait_a_moment():
        reader = asyncio.ensure_future(outbox.aget())
        while not outbox._waiters:
            await asyncio.sleep(0)
        reader.cancel()

    loop.run_until_complete(wait_a_moment())
    loop.close()
    outbox.put(PIECE)
    assert outbox.get() is PIECE
