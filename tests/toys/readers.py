"""How many readers and requests share a pass."""

import time


class Readers(list):
    """The number of readers of each pass of an engine's target, while `monkeypatch` lasts.

    A request has one reader in a pass, or its drafter's, too: what is cheaper by the clock.

    Attributes:
        requests: the number of requests of each pass of the engine's worker.
    """

    def __init__(self, engine, monkeypatch):
        super().__init__()
        self._engine, self._awaited, self._forward = engine, 0, engine.target.forward
        monkeypatch.setattr(engine.target, "forward", self._counted)
        self.requests, worker = [], engine._worker
        self._pass = worker._pass
        monkeypatch.setattr(worker, "_pass", self._shared)

    def wait_for(self, requests):
        """Have the next pass wait for as many requests, so that no short answer is over before the last one begins."""
        self._awaited = requests

    def _counted(self, rows):
        patience = time.monotonic() + 60
        while self._engine.running_requests + self._engine.waiting_requests < self._awaited:
            assert time.monotonic() < patience, f"{self._awaited} requests at once did not come"
            time.sleep(0.001)
        self._awaited = 0
        self.append(len(rows))
        return self._forward(rows)

    def _shared(self, jobs):
        self.requests.append(len(jobs))
        self._pass(jobs)
