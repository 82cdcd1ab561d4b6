"""Calls of several requests go in one HTTP request."""

import asyncio

import pytest

from rapid_integrations import RemoteError
from rapid_integrations.server.remote.batches import Batches


async def gathered(send, *asked, lonely=False):
    batches = Batches(send, lambda: lonely)
    return await asyncio.gather(*(batches.ask(kind, *items) for kind, *items in asked), return_exceptions=True)


def test_calls_of_one_kind_go_together():
    sent = []

    async def send(kind, items):
        sent.append((kind, items))
        return [item * 10 for item in items]

    found = asyncio.run(gathered(send, ("a", 1, 2), ("b", 3), ("a", 4)))
    assert found == [[10, 20], [30], [40]]
    assert sorted(sent) == [("a", [1, 2, 4]), ("b", [3])]


def test_an_error_belongs_to_its_call():
    async def send(kind, items):
        return [RemoteError("no") if item == 2 else item for item in items]

    first, second = asyncio.run(gathered(send, ("a", 1), ("a", 2)))
    assert first == [1] and isinstance(second, RemoteError)


@pytest.mark.parametrize("raised", [RemoteError("gone"), KeyError("choices")], ids=repr)
def test_an_error_of_the_request_belongs_to_all(raised):
    async def send(kind, items):
        raise raised

    found = asyncio.run(gathered(send, ("a", 1), ("a", 2), lonely=True))
    assert all(isinstance(each, RemoteError) for each in found)


def test_a_call_that_nobody_waits_for_holds_up_nothing():
    async def run():
        async def send(kind, items):
            await asyncio.sleep(0.01)
            return items

        batches = Batches(send, lambda: False)
        one, other = asyncio.ensure_future(batches.ask("a", 1)), asyncio.ensure_future(batches.ask("a", 2))
        await asyncio.sleep(0.001)
        one.cancel()
        return await other

    assert asyncio.run(run()) == [2]
