"""A request in the worker's hands, one step after another in this thread."""

import time
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
import torch

from rapid_integrations.cache import Rows
from rapid_integrations.decoding import recorder
from rapid_integrations.decoding.passes import Wanted
from rapid_integrations.decoding.recorder import Recorder
from rapid_integrations.engine import job as module
from rapid_integrations.engine.job import Job
from rapid_integrations.engine.outbox import ROOM, Ended, Progress
from rapid_integrations.outputs import CompletionChunk
from rapid_integrations.proposers.suite.table_model import TableLM

PIECE = CompletionChunk(text="x", token_ids=(1,))


class Computation:
    """Wants a row twice, with what it has got in between noted; `handles` an error by ending with a piece."""

    def __init__(self, handles=(), closing=None):
        self.handles, self.closing = handles, closing
        self.got, self.closed = [], False
        lm = TableLM(0)
        self.wanted = Wanted(lm, (Rows(torch.tensor([1]), lm.new_cache(4), 1),))
        self.recorder = Recorder(torch.device("cpu"))
        self.woken = []
        self.job = Job(self._steps, self.recorder, 7, lambda: self.woken.append("woken"))

    def _steps(self, job):
        try:
            for _ in range(2):
                with self.recorder.phase("verify"):
                    self.got.append((yield self.wanted))
        except self.handles:
            job.put(PIECE)
        finally:
            self.closed = True
            if self.closing is not None:
                raise self.closing


def events(job):
    found = []
    while not found or not isinstance(found[-1], Ended):
        found.append(job.outbox.get())
    return found


def test_it_wants_and_goes_on_until_it_ends():
    computation = Computation()
    job = computation.job
    job.start()
    assert job.wanted is computation.wanted
    job.resume(["first"], 0.0)
    assert job.wanted is computation.wanted and not job.outbox.ended
    job.resume(["second"], 0.0)
    assert job.wanted is None and computation.closed and computation.got == [["first"], ["second"]]
    assert events(job) == [Ended(None)]


def test_a_piece_of_several_prompts_is_cut_where_the_room_ends():
    computation = Computation()
    lm, job = computation.wanted.model, computation.job
    parts = [Rows(torch.arange(count), lm.new_cache(9), 0, of_prompt=True) for count in (2, 4, 3)]
    computation.wanted = Wanted(lm, tuple(parts))
    job.start()
    job.cut(9)
    assert job.wanted is computation.wanted
    job.cut(4)
    assert [rows.token_ids.tolist() for rows in job.wanted.rows] == [[0, 1], [0, 1]]
    job.resume([], 0.0)
    assert [rows.token_ids.tolist() for rows in job.wanted.rows] == [[2, 3], [0, 1, 2]]
    assert [rows.cache for rows in job.wanted.rows] == [parts[1].cache, parts[2].cache] and computation.got == []
    job.resume(["logits"], 0.0)
    assert computation.got == [["logits"]]


def test_time_that_belongs_to_others_is_not_its_own(monkeypatch):
    clock = SimpleNamespace(at=0.0, perf_counter=lambda: clock.at)
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(recorder, "time", clock)
    computation = Computation()
    computation.job.start()
    clock.at += 0.2
    computation.job.resume([], 0.05)
    assert computation.recorder.seconds["verify"] == pytest.approx(0.05)


def test_it_sees_the_error_of_its_pass_and_may_handle_it():
    error = ValueError("from the pass")
    unhandled, handled = Computation(), Computation(handles=ValueError)
    for computation in (unhandled, handled):
        computation.job.start()
        computation.job.fail(error)
        assert computation.closed and computation.job.wanted is None
    assert events(unhandled.job) == [Ended(error)]
    assert events(handled.job) == [PIECE, Ended(None)]


def test_an_error_before_the_first_wish_ends_it():
    def failing(job):
        raise ZeroDivisionError
        yield

    job = Job(failing, Recorder(torch.device("cpu")), 0, lambda: None)
    job.start()
    assert isinstance(events(job)[0].error, ZeroDivisionError)


@pytest.mark.parametrize("begun", [False, True])
def test_an_end_frees_what_it_holds(begun):
    computation = Computation()
    if begun:
        computation.job.start()
    computation.job.end()
    assert computation.closed == begun and computation.job.wanted is None
    assert events(computation.job) == [Ended(None)]
    computation.job.end(ValueError("later"))  # changes nothing
    assert events(computation.job) == [Ended(None)]


def test_an_error_while_it_is_freed_reaches_the_caller_unless_there_is_one():
    closing, first = KeyError("while closing"), ValueError("first")
    for given, said in ((None, closing), (first, first)):
        computation = Computation(closing=closing)
        computation.job.start()
        computation.job.end(given)
        assert events(computation.job) == [Ended(said)]


def test_cancel_wakes_the_worker_and_leaves_the_rest_to_it():
    computation = Computation()
    computation.job.start()
    computation.job.cancel()
    assert computation.job.cancelled and computation.woken == ["woken"]
    assert not computation.closed and not computation.job.outbox.ended


def test_its_clock_stands_still_while_its_caller_takes_nothing():
    computation = Computation()
    computation.recorder.start_decoding()
    begun = computation.recorder.decode_started
    assert not computation.job.pauses()
    for _ in range(ROOM):
        computation.job.put(PIECE)
    assert computation.job.pauses()
    time.sleep(0.1)
    assert computation.job.pauses() and computation.recorder.decode_started == begun
    computation.job.outbox.get()
    assert not computation.job.pauses() and computation.woken == ["woken"]
    stood = computation.recorder.decode_started - begun
    assert stood > 0.09
    assert not computation.job.pauses() and computation.recorder.decode_started - begun == stood


def test_its_place_in_the_queue_is_told_when_it_moves():
    job = Computation().job
    for place in (3, 3, 2, 1, 0):
        job.tell_place(place)
    job.end()
    assert events(job)[:-1] == [Progress("waiting", done, 3) for done in (0, 1, 2, 3)]


def test_whoever_need_not_wait_is_told_nothing():
    job = Computation().job
    job.tell_place(0)
    job.end()
    assert events(job) == [Ended(None)]


class Awaiting:
    """Awaits a future, and notes what its own pass was told of that time."""

    def __init__(self):
        self.future, self.woken, self.got = Future(), [], []
        self.recorder = Recorder(torch.device("cpu"))
        self.job = Job(self._steps, self.recorder, 7, lambda: self.woken.append("woken"))

    def _steps(self, job):
        with self.recorder.phase("score"):
            self.got.append((yield self.future))
            self.got.append(self.future.result())


def test_it_awaits_what_happens_elsewhere():
    computation = Awaiting()
    job = computation.job
    job.start()
    assert job.wanted is None and job.awaits() and not computation.woken
    time.sleep(0.02)
    computation.future.set_result("rows")
    assert computation.woken == ["woken"] and not job.awaits()
    job.resume([], 0.0)
    assert computation.got == [[], "rows"] and events(job) == [Ended(None)]
    assert computation.recorder.seconds["score"] >= 0.02  # the wait is its own time


def test_an_error_elsewhere_is_raised_in_the_computation():
    computation = Awaiting()
    computation.job.start()
    error = ConnectionError("gone")
    computation.future.set_exception(error)
    computation.job.resume([], 0.0)
    assert events(computation.job) == [Ended(error)]


def test_one_that_is_ended_while_it_awaits_lets_go():
    computation = Awaiting()
    computation.job.start()
    computation.job.end()
    assert not computation.job.awaits() and events(computation.job) == [Ended(None)]
    computation.future.set_result("late")
    assert computation.got == []
