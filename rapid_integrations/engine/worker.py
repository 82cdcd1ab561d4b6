"""The one thread in which an engine computes: it reads what all running requests want in as few passes as possible.

A request is a generator that yields the rows it wants and is resumed with their logits (`decoding/passes.py`). If it
waits for another machine, the others go on. In each turn the worker takes in new requests, lets go of cancelled ones,
makes one pass over the decode rows of all that run, and then, unless the answers are due for more of the time
(`answers_share.py`), one pass over a piece of a prompt. So an answer keeps flowing while another request reads.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator

import torch

from rapid_integrations.decoding.passes import RIDERS, Wanted
from rapid_integrations.engine.admission import Admission
from rapid_integrations.engine.answers_share import AnswersShare
from rapid_integrations.engine.job import Job
from rapid_integrations.engine.pass_shares import PassShares
from rapid_integrations.errors import EngineClosedError, SharedResource
from rapid_integrations.kernels.cpu.torchs_threads import let_go_of_threads

PIECE_BESIDE_ANSWERS = 256  # tokens; a prompt is read in shorter pieces then, which takes a tenth longer in all

PATIENCE_S = 1.0
"""A request that has paused for so long may be waiting for the one that waits for its memory: a call inside a loop over
a stream. If all that run have, the next one begins although it does not fit."""


class Worker(SharedResource):
    """Computes the requests of an engine, in the order in which they came as far as memory goes, together as they run.

    Its thread starts with the first request and ends with `close`.

    Args:
        admission: says which request may begin.
    """

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self._shares = PassShares()
        self._answers_share = AnswersShare()
        self._process = os.getpid()
        self._changed = threading.Condition()
        self._new: deque[Job] = deque()
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []
        self._held_up = 0
        self._awake = False
        self._closed = False
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()

    @property
    def running(self) -> int:
        """The number of requests that have begun and not ended."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """The number of requests that have been submitted and have not begun."""
        return len(self._new) + len(self._waiting)

    @property
    def held_up(self) -> int:
        """The number of requests that have not begun because there is no memory for them, or for one before them."""
        return self._held_up

    def submit(self, job: Job) -> None:
        """Take a request. It ends with `EngineClosedError` if the worker has been closed."""
        job.submitted(torch.get_num_threads())
        let_go_of_threads()  # what is embedded and loaded has been: from here on the worker computes
        with self._changed:
            closed = self._closed
            if not closed:
                self._new.append(job)
                if self._thread is None:
                    self._thread = threading.Thread(target=self._work, name="rapid worker", daemon=True)
                    self._thread.start()
                    _OPEN.add(self)
                self.wake()
        if closed:
            job.end(EngineClosedError())

    def wake(self) -> None:
        """Have the worker look again at what there is to do; safe in a finaliser, as nothing waits in this lock."""
        if self._process != os.getpid():  # a forked child has no worker, and its lock may be taken for ever
            return
        with self._changed:
            self._awake = True
            self._changed.notify_all()

    def close(self, wait: bool = True) -> None:
        """End all requests with `EngineClosedError` after the present pass, and the thread; safe to call again."""
        if self._process != os.getpid():
            return
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        if wait and thread is not None and thread is not threading.current_thread():
            self._ended.wait()  # first: a `join` that Ctrl-C interrupts takes the thread for ended (before Python 3.13)
            thread.join()

    # --- in the thread ------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        error: BaseException = EngineClosedError()
        try:
            while self._take_in():
                self._admit()
                self._decode()
                self._prefill()
        except BaseException as raised:  # a fault of ours: nobody may wait for ever
            error = raised
        with self._changed:
            self._closed = True
        for job in (*self._running, *self._waiting, *self._new):
            job.end(error)
        self._running, self._waiting, self._new, self._held_up = [], deque(), deque(), 0
        _OPEN.discard(self)
        self._ended.set()

    def _take_in(self) -> bool:
        """Take what is new and let go of what is cancelled, once there is something to do. False: it is closed."""
        while True:
            with self._changed:
                if self._closed:
                    return False
                self._awake = False
                self._waiting += self._new
                self._new.clear()
            self._let_go()
            if self._busy():
                return True
            self._tell_places()  # those that run may pause for long
            if not self._running:
                let_go_of_threads()  # whoever embeds the next question's text has the processors
            with self._changed:
                if not (self._awake or self._closed):
                    self._changed.wait(PATIENCE_S if self._waiting else None)

    def _let_go(self) -> None:
        for job in [job for job in (*self._running, *self._waiting) if job.cancelled]:
            job.end()
            self._forget(job)

    def _forget(self, job: Job) -> None:
        if job in self._running:
            self._running.remove(job)
            self.admission.leave(job)
        elif job in self._waiting:
            self._waiting.remove(job)

    def _busy(self) -> bool:
        return any(not (job.pauses() or job.awaits()) for job in self._running) or self._may_begin() is not None

    def _may_begin(self) -> Job | None:
        """Return the first request that waits, if there is room for it.

        It also begins if all that run have paused for `PATIENCE_S`.
        """
        first = self._waiting[0] if self._waiting else None
        if first is None or self.admission.fits(first) or all(job.paused_for(PATIENCE_S) for job in self._running):
            return first
        return None

    def _admit(self) -> None:
        """Begin requests in the order in which they came, while the first of them fits."""
        while (job := self._may_begin()) is not None:
            self._waiting.popleft()
            self._running.append(job)  # first: whatever fails now ends it, too
            self.admission.enter(job)
            job.tell_place(0)
            job.start()
            self._after(job)
        self._tell_places()

    def _tell_places(self) -> None:
        self._held_up = len(self._waiting)
        for place, job in enumerate(self._waiting, start=1):
            job.tell_place(place)

    def _decode(self) -> None:
        """Make one pass for the decode rows of everybody, or as few as they fit in."""
        for group in _together([job for job in self._running if _reads(job) and not _is_piece(job.wanted)]):
            self._pass(group)
        for job in [job for job in self._running if job.wanted is None and not job.awaits()]:
            job.resume([], 0.0)  # it waits for another request, and looks again; or what it awaited has happened
            self._after(job)

    def _prefill(self) -> None:
        """Read one piece of the prompt of the first request that has one to read: a short one if answers flow, and none
        while these are due.

        Others' short pieces ride along. Documents that are read ahead come after the prompts of questions.
        """
        reading = [job for job in self._running if _reads(job) and _is_piece(job.wanted)]
        job = min(reading, key=lambda job: job.ahead, default=None)
        if job is None:
            return
        answers = [other for other in self._running if _reads(other) and not _is_piece(other.wanted)]
        if answers and self._answers_share.is_due:
            return
        if answers or any(other.awaits() for other in self._running):
            job.cut(PIECE_BESIDE_ANSWERS)
        self._pass([job, *_riders(job, reading)])

    def _pass(self, jobs: list[Job]) -> None:
        """Read what several requests want in one pass, and let each go on."""
        wanted = [job.wanted for job in jobs if job.wanted is not None]
        _use_threads(jobs[0].threads)
        start = time.perf_counter()
        try:
            logits = wanted[0].model.forward([rows for each in wanted for rows in each.rows])
        except BaseException as error:
            del wanted
            if error.__traceback__ is not None:  # whoever handles the error must not hold this frame
                error.__traceback__ = error.__traceback__.tb_next
            if len(jobs) == 1:
                jobs[0].fail(error)
                self._after(jobs[0])
            else:  # only whoever it belongs to sees the error; no cache has moved
                for job in jobs:
                    self._pass([job])
            return
        seconds = time.perf_counter() - start
        readers, rows = [len(each.rows) for each in wanted], [each.count for each in wanted]
        if _is_piece(wanted[0]):  # many rows: what they cost is what there is
            self._answers_share.read_piece(seconds)
            shares = [seconds * each / sum(rows) for each in rows]
        else:
            self._answers_share.wrote(seconds)
            shares = self._shares.split(wanted[0].model, rows, seconds)
        del wanted
        mine = iter(logits)
        for job, count, share in zip(jobs, readers, shares, strict=True):
            job.resume([next(mine) for _ in range(count)], share)
            self._after(job)

    def _after(self, job: Job) -> None:
        if job.outbox.ended:
            self._forget(job)


_OPEN: weakref.WeakSet[Worker] = weakref.WeakSet()


def _reads(job: Job) -> bool:
    return job.wanted is not None and not job.pauses()


def _is_piece(wanted: Wanted | None) -> bool:
    """Whether rows are a piece of a prompt, or too many to share a pass although nobody waits for their logits."""
    if wanted is None or any(each.keep for each in wanted.rows):
        return False
    return wanted.count > wanted.model.rows_together or any(each.of_prompt for each in wanted.rows)


def _together(jobs: list[Job]) -> Iterator[list[Job]]:
    """Yield groups of requests that share a pass: of one model, with no more rows than it reads together."""
    by_model: dict[int, list[Job]] = {}
    for job in jobs:
        assert job.wanted is not None
        by_model.setdefault(id(job.wanted.model), []).append(job)
    for of_model in by_model.values():
        group: list[Job] = []
        rows = 0
        for job in of_model:
            assert job.wanted is not None
            if group and rows + job.wanted.count > job.wanted.model.rows_together:
                yield group
                group, rows = [], 0
            group.append(job)
            rows += job.wanted.count
        yield group


def _riders(job: Job, reading: list[Job]) -> Iterator[Job]:
    """Yield the requests whose pieces share the pass of the first one's, which thus has at most `RIDERS` more rows."""
    assert job.wanted is not None
    model, rows = job.wanted.model, job.wanted.count
    most = max(PIECE_BESIDE_ANSWERS, rows) + RIDERS
    for other in reading:
        wanted = other.wanted
        if other is job or wanted is None or wanted.model is not model or not model.prompts_together:
            continue
        if rows + wanted.count <= most:
            rows += wanted.count
            yield other


def _use_threads(threads: int) -> None:
    if torch.get_num_threads() != threads:  # the setting belongs to a thread, and the caller has made it in its own
        torch.set_num_threads(threads)


@atexit.register
def _close_all() -> None:
    """Wait for passes that are still running, whatever Ctrl-C says.

    Python ends a daemon thread that comes back from a pass while the interpreter shuts down. That unwinds PyTorch's
    frames, which aborts the process.
    """
    for worker in tuple(_OPEN):
        closed = False
        while not closed:
            try:
                worker.close()
                closed = True
            except KeyboardInterrupt:
                continue
