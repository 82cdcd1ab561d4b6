"""A request in the worker's hands."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, TypeAlias

from torch import Tensor

from rapid_integrations.decoding.passes import Steps, Wanted, Wish
from rapid_integrations.decoding.recorder import Recorder
from rapid_integrations.engine.outbox import Ended, Outbox, Progress
from rapid_integrations.outputs import CompletionChunk

Answering: TypeAlias = Callable[["Job"], Steps[None]]


class Job:
    """A request from its submission to its end. Only the worker calls it, but for `cancel`.

    Args:
        answering: makes the computation, which hands its pieces to `put` and its progress to `report`.
        recorder: the request's clock.
        need: returns the bytes of KV cache that the request needs of its own, as far as nothing of it is held now.
        changed: wakes the worker.
        ahead: whether it reads a document that nobody waits for. Prompts of questions are then read first.

    Attributes:
        need: see above.
        held: returns the bytes of the KV caches of its own that it has.
        outbox: what the caller gets.
        wanted: rows that the request waits for; None if it waits for something else.
        cancelled: nobody waits for it any more.
        threads: processor threads that a pass may use; those of the caller.
    """

    def __init__(
        self,
        answering: Answering,
        recorder: Recorder,
        need: Callable[[], int],
        changed: Callable[[], None],
        *,
        ahead: bool = False,
    ) -> None:
        self.ahead = ahead
        self._answering: Answering | None = answering
        self._recorder, self._changed = recorder, changed
        self._steps: Steps[None] | None = None
        self._resumed = 0.0
        self._paused_at: float | None = None
        self._queue: tuple[int, int] = (0, 0)  # places in the queue: at first, and now
        self.need = need
        self.held: Callable[[], int] = _nothing
        self.outbox = Outbox(changed)
        self.wanted: Wanted | None = None
        self._rest: Wanted | None = None
        self._awaited: Future[Any] | None = None
        self.cancelled = False
        self._made = self._submitted = time.perf_counter()
        self.threads = 1

    def put(self, piece: CompletionChunk) -> None:
        """Hand a piece of the answer to the caller."""
        self.outbox.put(piece)

    def report(self, stage: str, done: int, total: int) -> None:
        """Tell the caller of progress."""
        self.outbox.put(Progress(stage, done, total))

    def cancel(self) -> None:
        """Have the worker end it before its next pass; safe in any thread, at any time."""
        self.cancelled = True
        self._changed()

    def submitted(self, threads: int) -> None:
        """Note the moment at which the request was submitted, and the processor threads that its passes may use."""
        self._submitted, self.threads = time.perf_counter(), threads
        self._recorder.idle(self._submitted - self._made)

    def start(self) -> None:
        """Begin the computation, up to its first wish."""
        assert self._answering is not None, "it has not ended"
        self._recorder.seconds["queued"] = time.perf_counter() - self._submitted
        self._steps = self._answering(self)
        self._advance(lambda steps: next(steps))

    def resume(self, logits: list[Tensor], seconds: float) -> None:
        """Go on with logits, up to the next wish.

        Args:
            logits: what was wanted.
            seconds: this request's share of the pass. The rest of the time since it asked belongs to others.
        """
        now = time.perf_counter()
        if self._awaited is not None:  # what another machine takes is the request's own time
            seconds, self._awaited = now - self._resumed, None
        self._recorder.elsewhere(now - self._resumed - seconds)
        self.wanted, self._rest = self._rest, None
        if self.wanted is None:
            self._advance(lambda steps: steps.send(logits))
        else:
            self._resumed = now

    def cut(self, tokens: int) -> None:
        """Want only the first `tokens` of a prompt's piece at first, and the rest of it after the next pass."""
        assert self.wanted is not None
        head, rest, room = [], [], tokens
        for rows in self.wanted.rows:
            now, later = (replace(rows, token_ids=part) for part in (rows.token_ids[:room], rows.token_ids[room:]))
            head += [now] if now.count else []
            rest += [later] if later.count else []
            room -= now.count
        if rest:
            self.wanted, self._rest = Wanted(self.wanted.model, tuple(head)), Wanted(self.wanted.model, tuple(rest))

    def fail(self, error: BaseException) -> None:
        """Let the computation see an error of its pass, which may end it."""
        self.wanted = self._rest = None
        self._advance(lambda steps: steps.throw(error))

    def awaits(self) -> bool:
        """Whether it waits for something outside of the worker that has not happened."""
        return self._awaited is not None and not self._awaited.done()

    def end(self, error: BaseException | None = None) -> None:
        """Free everything, and tell the caller."""
        steps, self._steps, self._answering = self._steps, None, None
        self.wanted = self._rest = self._awaited = None
        self.need = self.held = _nothing  # the caller may keep this, and with it whatever it holds
        if steps is not None:
            try:
                steps.close()
            except BaseException as raised:
                error = error or raised
        del steps
        self.outbox.put(Ended(error))

    def pauses(self) -> bool:
        """Whether the caller has not taken what there is for it. The request's clock stands still meanwhile."""
        full, now = self.outbox.full, time.perf_counter()
        if full and self._paused_at is None:
            self._paused_at = now
        elif not full and self._paused_at is not None:
            self._recorder.waited(now - self._paused_at)
            self._paused_at = None
        return full

    def paused_for(self, seconds: float) -> bool:
        """Whether it has paused for so long without a break."""
        return self.pauses() and self._paused_at is not None and time.perf_counter() - self._paused_at >= seconds

    def tell_place(self, place: int) -> None:
        """Tell the caller how the queue moves: `place` is 1 for the next request to begin, and 0 when it begins."""
        first, last = self._queue
        if place != last:
            first = first or place
            self._queue = first, place
            self.report("waiting", first - place, first)

    def _advance(self, step: Callable[[Steps[None]], Wish]) -> None:
        assert self._steps is not None, "it has been started and has not ended"
        try:
            wish = step(self._steps)
            self._resumed = time.perf_counter()
            self.wanted = wish if isinstance(wish, Wanted) else None
            if isinstance(wish, Future):
                self._awaited = wish
                changed = self._changed
                wish.add_done_callback(lambda _: changed())
        except StopIteration:
            self.end()
        except BaseException as error:
            self.end(error)


def _nothing() -> int:
    return 0
