"""Which requests may run beside each other."""

import threading

import pytest

from rapid_integrations import RapidEngine, SamplingParams
from rapid_integrations.cache.kv_cache import allocated_tokens
from rapid_integrations.engine.admission import Admission
from rapid_integrations.errors import OutOfMemoryError
from tests.toys.engines import PROMPT, engine
from tests.toys.errors import coded
from tests.toys.jobs import ToyJob, WatchedLM
from tests.toys.models import byte_tokenizer, tiny_model

TEXT, NEW = "x" * 100, 200
ANSWER = SamplingParams(max_new_tokens=NEW)


def engine_for(requests):
    """Return an engine whose budget holds as many requests for `TEXT`."""
    with RapidEngine.from_models(tiny_model("llama", 0), byte_tokenizer()) as engine:
        needed = allocated_tokens(engine.count_tokens(TEXT) + NEW) * engine.target.kv_bytes_per_token
    return RapidEngine.from_models(
        tiny_model("llama", 0), byte_tokenizer(), sampling=ANSWER, kv_cache_bytes=int(requests * needed)
    )


class NoWorker:
    def wake(self):
        pass


def job(nbytes):
    return ToyJob(NoWorker(), WatchedLM(), [], nbytes)


def test_requests_fit_together_up_to_the_budget():
    admission = Admission(10, lambda: 0)
    first, second, third = job(6), job(4), job(1)
    for each in (first, second):
        assert admission.fits(each)
        admission.enter(each)
    assert not admission.fits(third)
    admission.leave(second)
    assert admission.fits(third)
    admission.leave(second)  # it is counted no more
    admission.leave(first)
    assert admission.fits(job(11))  # alone, it is never left waiting


def test_what_could_never_run_is_refused_with_both_numbers():
    admission = Admission(1000, lambda: 0)
    admission.require(1000, 10)
    said = r"needs 1,001 bytes of KV cache for 11 tokens.* allows 1,000 "
    with pytest.raises(OutOfMemoryError, match=said, check=coded("out_of_memory.kv_budget")):
        admission.require(1001, 11)


def test_the_engine_refuses_it_before_anything_runs():
    with engine() as roomy:
        roomy.generate(PROMPT)
        need = roomy.kv_bytes
    with engine(kv_cache_bytes=need // 2) as narrow:
        with pytest.raises(OutOfMemoryError, match=f"kv_cache_bytes allows {need // 2:,} "):
            narrow.stream(PROMPT)
        assert narrow.running_requests == narrow.waiting_requests == 0
        short = SamplingParams(max_new_tokens=2)
        assert narrow.generate("hello", sampling=short).token_ids  # the next one fits


def test_requests_wait_in_order_and_tell_their_callers():
    reports, ended, lock = {1: [], 2: []}, [], threading.Lock()
    with engine_for(1.5) as engine:
        first = engine.stream(TEXT)
        next(first)

        def answer(number):
            def report(stage, done, total):
                if stage == "waiting":
                    reports[number].append((done, total))

            engine.generate(TEXT, on_progress=report)
            with lock:
                ended.append(number)

        threads = []
        for number in (1, 2):
            threads.append(threading.Thread(target=answer, args=(number,)))
            threads[-1].start()
            until(lambda number=number: reports[number])
        assert (engine.running_requests, engine.waiting_requests) == (1, 2)
        first.close()
        for thread in threads:
            thread.join(60)
        assert (engine.running_requests, engine.waiting_requests) == (0, 0)
    assert ended == [1, 2]
    assert reports == {1: [(0, 1), (1, 1)], 2: [(0, 2), (1, 2), (2, 2)]}  # the last says that the wait is over


def until(holds):
    """Wait until something holds."""
    pause = threading.Event()
    assert any(holds() or pause.wait(0.01) for _ in range(3000))
