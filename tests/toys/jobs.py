"""Requests for a worker without an engine: generators over table models whose passes can be held back."""

import threading
import time

import torch

from rapid_integrations.cache import Rows
from rapid_integrations.decoding.passes import Wanted
from rapid_integrations.decoding.recorder import Recorder
from rapid_integrations.engine.job import Job
from rapid_integrations.engine.outbox import Ended, Progress
from rapid_integrations.outputs import CompletionChunk
from rapid_integrations.proposers.suite.table_model import SharedTableLM

BAD = 3  # a token that no pass survives
SECONDS = 60  # after which a worker that does nothing is said to hang; never waited for if all is well


class BadTokenError(Exception):
    """A pass has read `BAD`."""


class Clock:
    """Stands for the module `time`, and moves only when it is told to."""

    now = 0.0

    def perf_counter(self):
        return self.now


class WatchedLM(SharedTableLM):
    """Notes each pass: (rows, keep) of its readers. While `gate` is closed, passes wait at it.

    A row takes a second of `clock`, a `Clock`.
    """

    def __init__(self, seed=0, rows_together=32, prompts_together=False, clock=None):
        super().__init__(seed)
        self.clock = clock
        self.rows_together, self.prompts_together = rows_together, prompts_together
        self.noted, self.threads = [], []
        self.gate, self.inside = threading.Event(), threading.Event()
        self.gate.set()

    def forward(self, rows):
        self.inside.set()
        assert self.gate.wait(SECONDS), "nobody has opened the gate"
        self.noted.append([(each.count, each.keep) for each in rows])
        self.threads.append(torch.get_num_threads())
        if self.clock is not None:
            self.clock.now += sum(each.count for each in rows)
        if any(BAD in each.token_ids.tolist() for each in rows):
            raise BadTokenError
        return super().forward(rows)

    def hold(self):
        """Have the next pass wait until `gate` is opened."""
        self.inside.clear()
        self.gate.clear()

    def wait_inside(self):
        assert self.inside.wait(SECONDS), "no pass is made"


class ToyJob(Job):
    """A request that reads texts, a pass for each, and hands out a piece behind each pass that gives logits.

    Args:
        worker: that will compute it.
        lm: its model.
        texts: (token ids, keep) of each pass.
        nbytes: what it needs.
        begun: gets `name` when the request begins.
    """

    def __init__(self, worker, lm, texts, nbytes=0, begun=None, name=None):
        super().__init__(self._reading, Recorder(torch.device("cpu")), lambda: nbytes, worker.wake)
        self.recorder = self._recorder
        self.lm, self.texts, self.begun, self.name = lm, texts, begun, name
        self.closed = False

    def _reading(self, job):
        if self.begun is not None:
            self.begun.append(self.name)
        cache = self.lm.new_cache(sum(len(ids) for ids, _ in self.texts))
        try:
            for ids, keep in self.texts:
                (logits,) = yield Wanted(self.lm, (Rows(torch.tensor(ids), cache, keep),))
                if keep:
                    job.put(CompletionChunk(text="x", token_ids=(int(logits[-1].argmax()),)))
        finally:
            self.closed = True

    def expected(self):
        """The tokens that it hands out, computed without a worker."""
        text, found = [], []
        for ids, keep in self.texts:
            text += ids
            if keep:
                logits = self.lm.logits_after(text)
                found.append(logits.index(max(logits)))
        return found

    def drain(self):
        """Take everything; return the tokens, the progress and the error."""
        tokens, progress = [], []
        while not isinstance(event := self.outbox.get(), Ended):
            if isinstance(event, Progress):
                progress.append((event.stage, event.done, event.total))
            else:
                tokens += event.token_ids
        return tokens, progress, event.error


def steps(count, token=1):
    """Texts of `count` decoding steps."""
    return [([token], 1)] * count


def until(condition):
    """Wait for what another thread does."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)
