"""Fifty callers with ten documents at once, in memory for three: all are served or cancelled, and nothing is left."""

import asyncio
import gc
import os
import random
import threading
from dataclasses import dataclass, field

import psutil
import pytest

from rapid_integrations import CompressionConfig, Prompt, RapidEngine, SamplingParams
from tests.toys.embedder import HashEmbedder
from tests.toys.leaks import settled, threads
from tests.toys.light_model import light_engine
from tests.toys.models import words
from tests.toys.repository import ROOT

CALLERS, DOCUMENTS, AT_ONCE = 50, 10, 3
SECONDS = 300  # for all callers; never waited for if all is well


@dataclass
class Caller:
    """A thread or a task that asks one question, and what became of it.

    Attributes:
        fate: "whole", "closed early", "cancelled" or "dropped".
        patience: pieces or seconds after which a caller who does not want the whole answer goes away.
        tokens: what it got.
        end: how it ended.
    """

    number: int
    prompt: Prompt
    sampling: SamplingParams
    fate: str
    patience: float
    tokens: list[int] = field(default_factory=list)
    end: str | None = None

    @property
    def in_a_task(self):
        return self.number % 2 == 1

    def wait(self, engine):
        """Ask in this thread."""
        stream = engine.stream(self.prompt, sampling=self.sampling)
        if self.fate == "cancelled":
            threading.Timer(self.patience / 10, stream.cancel).start()
        for piece in stream:
            self._take(piece)
            if self._leaves():
                break
        if self.fate == "closed early":
            stream.close()
        self.end = self.end or self.fate

    async def wait_in_a_task(self, engine):
        """Ask without blocking the event loop."""
        try:
            stream = await engine.astream(self.prompt, sampling=self.sampling)
            async for piece in stream:
                self._take(piece)
                if self._leaves():
                    break
            if self.fate == "closed early":
                await stream.aclose()
        except asyncio.CancelledError:
            self.end = "cancelled"
            raise
        self.end = self.end or self.fate

    def _take(self, piece):
        self.tokens += piece.token_ids
        if piece.finish_reason is not None:
            self.end = "whole"

    def _leaves(self):
        return self.fate in ("closed early", "dropped") and len(self.tokens) > self.patience


def made_callers(documents, new_tokens, seed):
    """Return fifty callers in random order; half of them sample with a seed."""
    rng = random.Random(seed)
    callers = []
    for number in range(CALLERS):
        document = documents[number % DOCUMENTS]
        sampled = {"temperature": 1.0, "seed": number} if rng.random() < 0.5 else {}
        callers.append(
            Caller(
                number,
                # Longer than a pass of decoding. The kernels round the rows of a prompt in another way if a cached
                # beginning leaves so few of them that they are read by such a pass, and a sample may change.
                Prompt.from_context(document, f"question {number}: {words(number, 30)}?"),
                SamplingParams(max_new_tokens=new_tokens, **sampled),
                rng.choices(("whole", "closed early", "cancelled", "dropped"), (6, 2, 2, 1))[0],
                rng.uniform(0, 4),
            )
        )
    rng.shuffle(callers)
    return callers


def ask_all(engine, callers):
    """Let all callers ask at once and wait until each has ended."""
    begin = threading.Barrier(CALLERS // 2 + 1)

    def in_a_thread(caller):
        begin.wait()
        caller.wait(engine)

    async def in_one_loop():
        await asyncio.to_thread(begin.wait)
        tasks = [asyncio.create_task(caller.wait_in_a_task(engine)) for caller in callers if caller.in_a_task]
        for caller, task in zip((caller for caller in callers if caller.in_a_task), tasks, strict=True):
            if caller.fate == "cancelled":
                asyncio.get_running_loop().call_later(caller.patience / 10, task.cancel)
        for result in await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), SECONDS):
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                raise result

    asking = [threading.Thread(target=in_a_thread, args=(each,)) for each in callers if not each.in_a_task]
    for thread in asking:
        thread.start()
    asyncio.run(in_one_loop())
    for thread in asking:
        thread.join(SECONDS)
        assert not thread.is_alive()


class Watched:
    """Notes in which order an engine's requests are submitted and begin, and the memory of those that run.

    The first pass waits until `certain` requests are there: how busy the machine is does not decide how many meet.
    """

    def __init__(self, engine, certain):
        self.submitted, self.begun, self.most_bytes, self.most_running = [], [], 0, 0
        worker, model, lock = engine._worker, engine.target, threading.Lock()
        submit, enter, forward = worker.submit, worker.admission.enter, model.forward
        all_there = threading.Event()

        def noting_submit(job):
            with lock:  # so that the list has the order of the submissions
                self.submitted.append(job)
                submit(job)
                if len(self.submitted) >= certain:
                    all_there.set()

        def noting_enter(job):
            self.begun.append(job)
            enter(job)

        def noting_forward(rows):
            assert all_there.wait(SECONDS), "not all requests came"
            logits = forward(rows)
            running = [reader.cache for request in engine._prefixes._running for reader, _ in request.opened]
            # Shared rows belong to the prefix cache, or to the tail of another request that runs.
            self.most_bytes = max(self.most_bytes, sum(cache.nbytes for cache in running))
            self.most_running = max(self.most_running, worker.running)
            return logits

        worker.submit, worker.admission.enter, model.forward = noting_submit, noting_enter, noting_forward


def assert_served(make, documents, new_tokens, folder, kept_caches, seed):
    """Ask with fifty callers. `make` returns an engine with the options that it is given."""
    callers = made_callers(documents, new_tokens, seed)
    with make(prefix_cache_bytes=0) as quiet:
        needs = [quiet.stream(caller.prompt, sampling=caller.sampling)._job.need() for caller in callers]
    with make() as quiet:
        alone = {c.number: list(quiet.generate(c.prompt, sampling=c.sampling).token_ids) for c in callers}
    before = threads()  # loading may have started a thread of tqdm's
    budget = AT_ONCE * max(needs)
    with make(kv_cache_bytes=budget, prefix_cache_dir=folder) as engine:
        engine.generate(callers[0].prompt, sampling=SamplingParams(max_new_tokens=1))  # the loop, the worker, the files
        gc.collect()
        handles = psutil.Process().num_fds() if hasattr(os, "fork") else psutil.Process().num_handles()
        watched = Watched(engine, sum(caller.fate != "cancelled" for caller in callers))
        ask_all(engine, callers)
        assert settled(lambda: (gc.collect(), engine.running_requests, engine.waiting_requests)[1:], (0, 0)) == (0, 0)

        # All are served or cancelled, and get what they would get alone.
        for caller in callers:
            if caller.fate == "whole" or caller.end == "whole":
                assert (caller.end, caller.tokens) == ("whole", alone[caller.number]), caller
            else:
                assert caller.end == caller.fate, caller
                assert caller.tokens == alone[caller.number][: len(caller.tokens)], caller
        assert {caller.end for caller in callers} == {"whole", "closed early", "cancelled", "dropped"}

        # Nobody overtakes anybody. Only cancelled requests never begin.
        assert watched.begun == [job for job in watched.submitted if job in watched.begun]
        assert all(job.cancelled for job in watched.submitted if job not in watched.begun)

        # As many ran together as there was memory for, and it was enough.
        assert watched.most_running >= AT_ONCE
        assert 0 < watched.most_bytes <= budget

        # Nothing is left.
        del watched
        memory = engine._prefixes.memory
        assert settled(lambda: engine.kv_bytes == memory.nbytes, True)
        assert settled(lambda: set(kept_caches) == {entry.cache for entry in memory._entries}, True)
        now = psutil.Process().num_fds if hasattr(os, "fork") else psutil.Process().num_handles
        assert settled(lambda: now() <= handles, True)
    assert settled(threads, before) == before
    assert settled(lambda: sum(cache.nbytes for cache in kept_caches), 0) == 0
    assert {path.suffix for path in folder.iterdir()} <= {".safetensors", ".lock", ".sqlite"}


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_fifty_callers_on_tiny_models(seed, tmp_path, caches):  # noqa: F811
    def make(**options):
        return light_engine(
            embedder=HashEmbedder(),
            compression=CompressionConfig(chunk_tokens=64, min_tokens=64, min_chunks=2),
            **{"prefix_cache_bytes": 2_000_000, **options},
        )

    documents = [words(number, 90) for number in range(DOCUMENTS)]
    assert_served(make, documents, 12, tmp_path / "prefixes", caches, seed)


@pytest.mark.slow
def test_fifty_callers_on_a_real_model(tmp_path, caches):  # noqa: F811
    def make(**options):
        compression = CompressionConfig(min_tokens=256)
        return RapidEngine.from_pretrained(compression=compression, **{"prefix_cache_bytes": 400_000_000, **options})

    handbook = (ROOT / "examples" / "handbook.md").read_text()
    length = len(handbook) // (2 * DOCUMENTS)
    documents = [handbook[number * length :][:length] for number in range(DOCUMENTS)]
    assert_served(make, documents, 16, tmp_path / "prefixes", caches, 1)
