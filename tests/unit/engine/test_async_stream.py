"""The asynchronous forms: the event loop stays free, and a cancelled request leaves nothing behind."""

import asyncio
import gc

import pytest

from rapid_integrations import ContextOverflowError, Prompt, SamplingParams
from tests.toys.engines import PROMPT, engine
from tests.toys.event_loop import answered_while_the_loop_turns
from tests.toys.held_passes import HeldPasses, eventually
from tests.toys.models import words


def only_kept(owner, kept):
    """Return whether no request holds a KV cache any more: what lives is the prefix cache's, within its budget."""
    gc.collect()
    memory = owner._prefixes.memory
    assert memory.nbytes <= memory.max_bytes
    return set(kept) == {entry.cache for entry in memory._entries}


async def test_the_answer_is_that_of_the_synchronous_form():
    shared = engine()
    expected = shared.generate(PROMPT)
    answer = await shared.agenerate(PROMPT)
    assert (answer.text, answer.token_ids, answer.retrieved) == (expected.text, expected.token_ids, expected.retrieved)
    pieces = [piece async for piece in await shared.astream(PROMPT)]
    assert "".join(piece.text for piece in pieces) == expected.text and pieces[-1].stats is not None


async def test_the_loop_keeps_turning():
    shared = engine()
    answer = await answered_while_the_loop_turns(shared.agenerate(PROMPT), shared)
    assert answer.token_ids == shared.generate(PROMPT).token_ids


async def test_errors_of_the_request_are_raised_at_once():
    with pytest.raises(ContextOverflowError):
        await engine().astream(PROMPT, sampling=SamplingParams(max_new_tokens=10_000))


@pytest.mark.long
async def test_eight_at_once_are_answered_as_alone():
    shared = engine()
    prompts = [Prompt.from_context(words(seed, 90), f"question {seed}?") for seed in range(8)]
    alone = [shared.generate(prompt).token_ids for prompt in prompts]
    together = await asyncio.gather(*(shared.agenerate(prompt) for prompt in prompts))
    assert [answer.token_ids for answer in together] == alone


@pytest.mark.long
async def test_cancelling_the_awaiting_task_stops_the_work(monkeypatch, caches):  # noqa: F811
    shared = engine()
    passes = HeldPasses(shared, monkeypatch)  # of the prefill
    task = asyncio.create_task(shared.agenerate(PROMPT))
    await eventually(passes.inside.is_set)
    task.cancel()
    passes.let_go()  # the cancelled task waits for its pass
    with pytest.raises(asyncio.CancelledError):
        await task
    del task

    await eventually(lambda: only_kept(shared, caches))
    assert (await shared.agenerate(PROMPT)).token_ids


@pytest.mark.long
async def test_closing_early_and_never_draining(caches):  # noqa: F811
    shared = engine()
    expected = shared.generate(PROMPT).token_ids
    async with await shared.astream(PROMPT) as stream:
        async for _ in stream:
            break
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    undrained = await shared.astream(PROMPT)
    await anext(undrained)
    async for piece in (loop := await shared.astream(PROMPT)):  # a call inside a loop over a stream
        assert (await shared.agenerate(PROMPT)).token_ids == expected
        await loop.aclose()
        assert piece is not None
    await undrained.aclose()
    assert only_kept(shared, caches)
    shared.clear_prefix_cache()
    gc.collect()
    assert len(caches) == 0


@pytest.mark.long
@pytest.mark.parametrize("how", ["cancel", "close"])
async def test_cancelling_in_the_middle_of_a_pass(how, monkeypatch, caches):  # noqa: F811
    shared = engine(prefix_cache_bytes=0)
    stream = await shared.astream(PROMPT, sampling=SamplingParams(max_new_tokens=400))
    await anext(stream)
    assert len(caches) > 0
    passes = HeldPasses(shared, monkeypatch)

    async def read_all():
        async for _ in stream:
            pass

    step = asyncio.create_task(read_all())
    await eventually(passes.inside.is_set)
    if how == "cancel":
        step.cancel()
        with pytest.raises(asyncio.CancelledError):
            await step
        passes.let_go()
    else:
        closing = asyncio.create_task(stream.aclose())
        await asyncio.sleep(0.05)
        assert not closing.done()  # it waits for the pass, and the event loop does not
        passes.let_go()
        await closing
        await step
    await eventually(lambda: gc.collect() >= 0 and len(caches) == 0)


async def test_a_failing_model_raises_where_the_answer_is_awaited(monkeypatch):
    shared = engine()
    expected = shared.generate(PROMPT).token_ids

    def fail(*_):
        raise MemoryError("no memory left")

    with monkeypatch.context() as patch:
        patch.setattr(type(shared.target), "forward", fail)
        with pytest.raises(MemoryError, match="no memory left"):
            await shared.agenerate(PROMPT)
    assert (await shared.agenerate(PROMPT)).token_ids == expected
