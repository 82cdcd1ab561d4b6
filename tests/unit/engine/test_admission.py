"""Requests begin while there is memory for their caches. The others wait, and their callers see how the queue moves."""

import threading

import pytest

from rapid_integrations import OutOfMemoryError, RapidEngine, SamplingParams
from tests.toys.models import byte_tokenizer, tiny_model

PROMPT, NEW = "x" * 100, 200
SHORT = SamplingParams(max_new_tokens=NEW)


def engine_for(requests):
    """Return an engine whose budget holds as many requests for `PROMPT`."""
    with RapidEngine.from_models(tiny_model("llama", 0), byte_tokenizer()) as engine:
        needed = (engine.count_tokens(PROMPT) + NEW) * engine.target.kv_bytes_per_token
    return RapidEngine.from_models(
        tiny_model("llama", 0), byte_tokenizer(), sampling=SHORT, kv_cache_bytes=int(requests * needed)
    )


def test_a_request_that_could_never_fit_is_refused_with_both_numbers():
    rule = r"needs [\d,]+ bytes .* allows [\d,]+"
    with engine_for(0.5) as engine, pytest.raises(OutOfMemoryError, match=rule) as told:
        engine.stream(PROMPT)
    assert told.value.code == "out_of_memory.kv_budget"


def test_requests_wait_in_order_and_tell_their_callers():
    reports, ended, lock = {1: [], 2: []}, [], threading.Lock()
    with engine_for(1.5) as engine:
        first = engine.stream(PROMPT)
        next(first)

        def answer(number):
            def report(stage, done, total):
                if stage == "waiting":
                    reports[number].append((done, total))

            engine.generate(PROMPT, on_progress=report)
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
