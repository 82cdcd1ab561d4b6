"""The worker: who shares a pass with whom, who waits for whom, and what is left at the end."""

import gc
import signal
import threading
import time
import weakref

import pytest
import torch

from rapid_integrations import SamplingParams
from rapid_integrations.cache import KVCache
from rapid_integrations.engine import worker as module
from rapid_integrations.engine.admission import Admission
from rapid_integrations.engine.outbox import ROOM
from rapid_integrations.engine.worker import Worker
from rapid_integrations.errors import EngineClosedError
from tests.toys.engines import PROMPT, engine
from tests.toys.jobs import BAD, SECONDS, BadTokenError, Clock, ToyJob, WatchedLM, steps, until

ONE_STEP = [(1, 1)]


@pytest.fixture
def worker(monkeypatch):
    monkeypatch.setattr("rapid_integrations.engine.worker.PATIENCE_S", SECONDS)
    made = Worker(Admission(10, lambda: 0))
    yield made
    made.close()


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr("rapid_integrations.engine.worker.time", made)
    return made


def workers():
    return [thread for thread in threading.enumerate() if thread.name == "rapid worker"]


def submitted_at_once(worker, lm, jobs):
    """Have the worker take in all jobs at the same time: while it is held in a pass of another one."""
    lm.hold()
    first = ToyJob(worker, lm, steps(1))
    worker.submit(first)
    lm.wait_inside()
    for job in jobs:
        worker.submit(job)
    lm.gate.set()
    assert first.drain()[2] is None
    return [job.drain() for job in jobs]


def test_who_does_not_compute_lets_go_of_pytorchs_threads(worker, monkeypatch):
    """Else GNU OpenMP puts the threads of the one that computes to sleep between any two products."""
    let_go = []
    monkeypatch.setattr(module, "let_go_of_threads", lambda: let_go.append(threading.current_thread().name))
    job = ToyJob(worker, WatchedLM(), steps(2))
    worker.submit(job)
    job.drain()
    until(lambda: let_go[-1] == "rapid worker")
    assert let_go[0] == threading.current_thread().name


# --- sharing passes ---------------------------------------------------------------------------------------------------


def test_requests_that_run_share_each_pass(worker):
    lm = WatchedLM()
    jobs = [ToyJob(worker, lm, steps(3, token)) for token in (0, 1, 2)]
    results = submitted_at_once(worker, lm, jobs)
    assert [tokens for tokens, _, _ in results] == [job.expected() for job in jobs]
    assert lm.noted == [ONE_STEP, *[ONE_STEP * 3] * 3]


def test_a_pass_has_no_more_rows_than_the_model_reads_together(worker):
    lm = WatchedLM(rows_together=4)
    jobs = [ToyJob(worker, lm, [([1] * count, 1)]) for count in (2, 2, 1, 3, 6, 1)]
    results = submitted_at_once(worker, lm, jobs)
    assert [tokens for tokens, _, _ in results] == [job.expected() for job in jobs]
    assert [[count for count, _ in noted] for noted in lm.noted[1:]] == [[2, 2], [1, 3], [6], [1]]


def test_models_have_passes_of_their_own(worker):
    lm, other = WatchedLM(0), WatchedLM(1)
    jobs = [ToyJob(worker, each, steps(2)) for each in (lm, other, lm)]
    results = submitted_at_once(worker, lm, jobs)
    assert [tokens for tokens, _, _ in results] == [job.expected() for job in jobs]
    assert lm.noted[1:] == [ONE_STEP * 2] * 2 and other.noted == [ONE_STEP] * 2


def test_of_a_pass_that_fails_only_the_culprit_sees_the_error(worker):
    lm = WatchedLM()
    jobs = [ToyJob(worker, lm, steps(2, token)) for token in (0, BAD, 2)]
    results = submitted_at_once(worker, lm, jobs)
    assert [type(error) for _, _, error in results] == [type(None), BadTokenError, type(None)]
    assert [tokens for tokens, _, _ in results] == [jobs[0].expected(), [], jobs[2].expected()]
    # The pass of three is repeated one by one. The two that are left share the next one.
    assert lm.noted[1:] == [ONE_STEP * 3, ONE_STEP, ONE_STEP, ONE_STEP, ONE_STEP * 2]
    assert all(job.closed for job in jobs)


@pytest.mark.usefixtures("clock")  # which stands still
def test_an_answer_flows_while_another_prompt_is_read(worker):
    lm = WatchedLM(rows_together=4)
    answer, reading = ToyJob(worker, lm, steps(8)), ToyJob(worker, lm, [([2] * 6, 0)] * 4 + steps(1))
    results = submitted_at_once(worker, lm, [answer, reading])
    assert [tokens for tokens, _, _ in results] == [answer.expected(), reading.expected()]
    piece = [(6, 0)]
    assert lm.noted[1:] == [*[ONE_STEP, piece] * 4, ONE_STEP * 2, *[ONE_STEP] * 3]


def test_answers_have_a_quarter_of_the_time_while_a_prompt_is_read(worker, clock):
    lm = WatchedLM(rows_together=4, clock=clock)
    answer, reading = ToyJob(worker, lm, steps(12)), ToyJob(worker, lm, [([2] * 6, 0)] * 4 + steps(1))
    results = submitted_at_once(worker, lm, [answer, reading])
    assert [tokens for tokens, _, _ in results] == [answer.expected(), reading.expected()]
    piece = [(6, 0)]  # takes as long as six steps
    assert lm.noted[1:] == [ONE_STEP, *[piece, ONE_STEP, ONE_STEP] * 3, piece, ONE_STEP * 2, *[ONE_STEP] * 4]


def test_prompts_are_read_one_after_another(worker):
    lm = WatchedLM(rows_together=4)
    jobs = [ToyJob(worker, lm, [([token] * 6, 0)] * 2 + steps(1)) for token in (1, 2)]
    results = submitted_at_once(worker, lm, jobs)
    assert [tokens for tokens, _, _ in results] == [job.expected() for job in jobs]
    piece = [(6, 0)]
    assert lm.noted[1:] == [piece, piece, ONE_STEP, piece, piece, ONE_STEP]


def test_short_pieces_of_other_prompts_ride_along_if_that_changes_no_bit(worker):
    lm = WatchedLM(rows_together=4, prompts_together=True)
    counts = (200, 60, 100, 6)
    jobs = [ToyJob(worker, lm, [([1] * count, 0)] + steps(1)) for count in counts]
    results = submitted_at_once(worker, lm, jobs)
    assert [tokens for tokens, _, _ in results] == [job.expected() for job in jobs]
    # With a hundred more rows, the pass would have more than a piece beside answers and the riders.
    assert lm.noted[1:] == [[(200, 0), (60, 0), (6, 0)], ONE_STEP * 3, [(100, 0)], ONE_STEP]


def test_a_pass_has_as_many_threads_as_its_caller_allows(worker):
    lm = WatchedLM()

    def ask(threads):
        torch.set_num_threads(threads)
        job = ToyJob(worker, lm, steps(1))
        worker.submit(job)
        job.drain()

    here = torch.get_num_threads()
    for threads in (3, 1, 2):
        caller = threading.Thread(target=ask, args=(threads,))
        caller.start()
        caller.join()
    torch.set_num_threads(here)
    assert lm.threads == [3, 1, 2]


# --- a caller who does not take what there is -------------------------------------------------------------------------


def test_a_full_outbox_pauses_only_its_own_request(worker):
    lm = WatchedLM()
    undrained, other = ToyJob(worker, lm, steps(2 * ROOM)), ToyJob(worker, lm, steps(3 * ROOM))
    undrained.recorder.start_decoding()
    started = undrained.recorder.decode_started
    worker.submit(undrained)
    until(lambda: undrained.paused_for(0.2))
    worker.submit(other)
    assert other.drain()[0] == other.expected()  # more than there is room for: nobody waits for the other one
    assert sum(len(noted) for noted in lm.noted) == ROOM + 3 * ROOM
    assert undrained.outbox.full and not undrained.outbox.ended and worker.running == 1
    assert undrained.drain()[0] == undrained.expected()
    assert undrained.recorder.decode_started - started >= 0.2  # its clock stood still


@pytest.mark.skipif(not hasattr(time, "pthread_getcpuclockid"), reason="threads have no clocks here")
def test_a_paused_worker_does_not_compute(worker):
    job = ToyJob(worker, WatchedLM(), steps(2 * ROOM))
    worker.submit(job)
    until(lambda: job.outbox.full)
    time.sleep(0.05)
    clock = time.pthread_getcpuclockid(worker._thread.ident)  # of the worker alone
    before = time.clock_gettime(clock)
    time.sleep(0.3)
    assert time.clock_gettime(clock) - before < 0.1
    assert job.drain()[0] == job.expected()


# --- waiting for memory -----------------------------------------------------------------------------------------------


def test_requests_begin_in_order_as_there_is_room(worker):
    lm, begun = WatchedLM(), []
    sizes = {"a": 6, "b": 6, "c": 1, "d": 4, "e": 10}
    jobs = {name: ToyJob(worker, lm, steps(2), size, begun, name) for name, size in sizes.items()}
    lm.hold()
    for job in jobs.values():
        worker.submit(job)
    lm.wait_inside()
    assert (worker.running, worker.waiting) == (1, 4) and begun == ["a"]  # c and d would fit, and do not overtake b
    lm.gate.set()
    results = {name: job.drain() for name, job in jobs.items()}
    assert all(results[name][0] == job.expected() and results[name][2] is None for name, job in jobs.items())
    assert begun == list("abcde")
    until(lambda: (worker.running, worker.waiting) == (0, 0))


def test_who_begins_with_the_next_pass_is_not_held_up(worker):
    lm = WatchedLM()
    running, next_one = (ToyJob(worker, lm, steps(2), 5) for _ in range(2))
    lm.hold()
    worker.submit(running)
    lm.wait_inside()
    worker.submit(next_one)
    assert (worker.waiting, worker.held_up) == (1, 0)
    lm.gate.set()
    assert all(job.drain()[0] == job.expected() for job in (running, next_one))


def test_who_has_no_memory_is_held_up_with_those_behind(worker):
    lm = WatchedLM()
    first, large, small = (ToyJob(worker, lm, steps(ROOM + 1), size) for size in (5, 10, 1))
    worker.submit(first)
    until(lambda: first.outbox.full)
    for job in (large, small):
        worker.submit(job)
    until(lambda: worker.held_up == 2)
    large.cancel()
    until(lambda: worker.held_up == 0)
    assert all(job.drain()[0] == job.expected() for job in (first, small))


def test_waiting_is_told_as_progress_up_to_its_end(worker):
    lm = WatchedLM()
    jobs = [ToyJob(worker, lm, steps(2), 10) for _ in range(3)]
    lm.hold()
    worker.submit(jobs[0])
    lm.wait_inside()
    for job in jobs[1:]:
        worker.submit(job)
    lm.gate.set()
    assert [job.drain()[1] for job in jobs] == [
        [],
        [("waiting", 0, 1), ("waiting", 1, 1)],
        [("waiting", 0, 2), ("waiting", 1, 2), ("waiting", 2, 2)],
    ]


def test_a_request_that_is_cancelled_while_it_waits_never_begins(worker):
    lm, begun = WatchedLM(), []
    jobs = [ToyJob(worker, lm, steps(ROOM + 1), size, begun, name) for name, size in (("a", 5), ("b", 10), ("c", 5))]
    worker.submit(jobs[0])
    until(lambda: jobs[0].outbox.full)
    for job in jobs[1:]:
        worker.submit(job)
    until(lambda: worker.waiting == 2)
    jobs[1].cancel()
    assert jobs[1].drain()[0] == [] and jobs[1].drain()[2] is None
    until(lambda: begun == ["a", "c"])  # it had only waited for b
    assert all(jobs[at].drain()[0] == jobs[at].expected() for at in (0, 2))


def test_a_cancelled_request_makes_room(worker):
    lm, begun = WatchedLM(), []
    first, second = (ToyJob(worker, lm, steps(ROOM + 1), 10, begun, name) for name in "ab")
    worker.submit(first)
    until(lambda: first.outbox.full)
    worker.submit(second)
    first.cancel()
    first.outbox.wait_until_ended()
    assert first.closed
    assert second.drain()[0] == second.expected()


def test_a_call_inside_a_loop_over_a_stream_is_answered_when_memory_is_full(worker, monkeypatch):
    monkeypatch.setattr("rapid_integrations.engine.worker.PATIENCE_S", 0.05)
    lm = WatchedLM()
    loop, call = (ToyJob(worker, lm, steps(ROOM + 1), 10) for _ in range(2))
    worker.submit(loop)
    until(lambda: loop.outbox.full)
    worker.submit(call)
    assert call.drain()[0] == call.expected()
    assert not loop.outbox.ended and loop.drain()[0] == loop.expected()


def test_a_slow_reader_lets_nobody_begin_beyond_the_budget(worker):
    lm, begun = WatchedLM(), []
    slow, second = (ToyJob(worker, lm, steps(2 * ROOM), 10, begun, name) for name in "ab")
    worker.submit(slow)
    until(lambda: slow.outbox.full)
    worker.submit(second)
    for _ in range(ROOM - 1):
        slow.outbox.get()
        time.sleep(0.01)
        assert begun == ["a"]
    slow.drain()
    assert second.drain()[0] == second.expected() and begun == ["a", "b"]


# --- the end ----------------------------------------------------------------------------------------------------------


def test_close_ends_who_runs_and_who_waits(worker):
    lm = WatchedLM()
    running, waiting, late = (ToyJob(worker, lm, steps(3), 10) for _ in range(3))
    lm.hold()
    worker.submit(running)
    lm.wait_inside()
    worker.submit(waiting)
    closing = threading.Thread(target=worker.close)
    closing.start()
    lm.gate.set()
    closing.join()
    worker.submit(late)
    for job in (running, waiting, late):
        tokens, _, error = job.drain()
        assert isinstance(error, EngineClosedError) and len(tokens) <= 1
    assert running.closed and (worker.running, worker.waiting) == (0, 0)
    worker.close()


def test_a_closed_worker_has_no_thread():
    before = workers()
    made = Worker(Admission(10, lambda: 0))
    assert workers() == before  # it starts with the first request
    job = ToyJob(made, WatchedLM(), steps(1))
    made.submit(job)
    job.drain()
    assert len(workers()) == len(before) + 1
    made.close()
    assert workers() == before


def test_a_stream_that_is_garbage_is_cancelled():
    with engine() as answering:
        stream = answering.stream(PROMPT, sampling=SamplingParams(max_new_tokens=500))
        next(stream)
        assert answering.running_requests == 1
        del stream
        gc.collect()
        until(lambda: answering.running_requests == 0)
        assert answering.kv_bytes <= answering._prefixes.memory.nbytes


@pytest.mark.parametrize("undrained", [False, True])
def test_an_engine_that_is_dropped_leaves_no_thread(undrained):
    gc.collect()  # what earlier tests dropped
    before, caches_before = workers(), weakref.WeakSet(kept_caches())
    answering = engine()
    gone = weakref.ref(answering)
    if undrained:
        stream = answering.stream(PROMPT, sampling=SamplingParams(max_new_tokens=500))
        next(stream)
        del stream
    else:
        answering.generate(PROMPT)
    assert len(workers()) == len(before) + 1
    del answering

    def dropped():
        gc.collect()
        left = [each for each in kept_caches() if each not in caches_before]
        return gone() is None and workers() == before and not left

    until(dropped)


def kept_caches():
    return [each for each in gc.get_objects() if type(each) is KVCache and each.nbytes]


EXIT = """
import contextlib, sys, threading, time
from rapid_integrations import EngineClosedError, SamplingParams
from tests.toys.engines import PROMPT, engine
answering = engine()
stream = answering.stream(PROMPT, sampling=SamplingParams(max_new_tokens=900))
next(stream)
forward = answering.target.forward
def slowly(rows):  # the rest of the answer would take minutes
    time.sleep(0.5)
    return forward(rows)
answering.target.forward = slowly
def wait_for_pieces():
    with contextlib.suppress(EngineClosedError):
        list(stream)
if sys.argv[1] == "waiting":  # a thread waits for a piece at the end
    threading.Thread(target=wait_for_pieces, daemon=True).start()
"""


@pytest.mark.process
@pytest.mark.parametrize("how", ["undrained", "waiting"])
def test_the_interpreter_ends_while_a_stream_runs(how, children):
    done = children.run(EXIT, how, seconds=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_interpreter_waits_for_a_pass_whatever_ctrl_c_says(worker, monkeypatch):
    monkeypatch.setattr(module, "_OPEN", weakref.WeakSet())  # engines of other tests stay open
    lm = WatchedLM()
    lm.hold()
    job = ToyJob(worker, lm, steps(1))
    worker.submit(job)
    lm.wait_inside()
    interrupted = []

    def interrupt(number, frame):
        interrupted.append(number)
        if len(interrupted) == 2:
            lm.gate.set()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    try:
        module._close_all()
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:  # it came between the two lines
        signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert len(interrupted) >= 2 and not worker._thread.is_alive()
