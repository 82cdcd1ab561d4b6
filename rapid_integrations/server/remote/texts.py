"""The server's side of a remote drafter: texts that this engine's target reads and drafts for other engines.

A text is a computation among the engine's requests, on the engine's worker: its passes are shared with theirs, its
prompt may lie in the prefix cache, and its KV cache counts in `kv_cache_bytes`. Between two calls it waits in a future.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import Tensor

from rapid_integrations.decoding.drafter import Drafter
from rapid_integrations.decoding.passes import Steps
from rapid_integrations.decoding.prefixes import RequestReaders
from rapid_integrations.decoding.reader import Reader, first_columns
from rapid_integrations.decoding.rules import Rules
from rapid_integrations.engine.engine import RapidEngine
from rapid_integrations.engine.job import Job
from rapid_integrations.engine.outbox import Ended
from rapid_integrations.errors import (
    ConfigurationError,
    ContextOverflowError,
    EngineClosedError,
    RemoteError,
    SharedResource,
    shown,
)
from rapid_integrations.kernels.ops import ops_for
from rapid_integrations.sampling import Law, Penalties
from rapid_integrations.server.remote.best_rows import cut, outside

T = TypeVar("T")

IDLE_S = 300.0  # a text that nobody has asked about for so long is forgotten: its engine may have died
MOST_TEXTS = 256


@dataclass(frozen=True, kw_only=True)
class Opening:
    """What a text begins with.

    Attributes:
        token_ids: the prompt.
        new_tokens: how many tokens may follow.
        vocab_size: the width of the rows.
        best: how many of the best tokens of each row are part of it; 0 for all.
        eos: a draft ends with any of these.
        temperature, top_k, top_p, min_p: how a draft's tokens are drawn; see `Law`.
    """

    token_ids: Sequence[int]
    new_tokens: int
    vocab_size: int
    best: int = 0
    eos: frozenset[int] = frozenset()
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Call:
    """A wish for rows.

    Attributes:
        commit: tokens that became part of the text since the last call.
        draft: tokens behind it, to be read tentatively.
        have: so many of the first rows are not wanted.
        ahead: so many tokens are drafted behind `draft`.
        shares: the uniform numbers that draw them; not needed if drafts are greedy.
        done: receives the answer.
    """

    commit: Sequence[int] = ()
    draft: Sequence[int] = ()
    have: int = 0
    ahead: int = 0
    shares: Sequence[float] = ()
    done: Future[Answered] = field(default_factory=Future)


@dataclass(frozen=True)
class Answered:
    """The answer to a call.

    Attributes:
        written: the drafted tokens.
        rows: logits (V,) after each of the draft tokens and of `written`, from `Call.have` on.
        outside: for each row, the probability at T = 1 of the tokens that were cut off.
    """

    written: list[int]
    rows: list[Tensor]
    outside: list[float]


class BestOnly(Drafter):
    """A drafter whose rows hold their best tokens only; 0 keeps all. `outside` says what was cut off of each."""

    def __init__(self, reader: Reader, rules: Rules, best: int) -> None:
        super().__init__(reader, rules)
        self._best = best
        self.outside: list[float] = []

    def scored(self, logits: Tensor) -> None:
        """Take the logits (keep, at least V) that `wants` asked for."""
        for row in first_columns(logits, self._rules.vocab_size).unbind():
            self.outside.append(outside(row, self._best))
            self._rows.append(cut(row, self._best))

    def keep(self, tokens: int) -> None:
        """See `Drafter.keep`."""
        super().keep(tokens)
        del self.outside[tokens + 1 :]

    def commit(self, token_ids: Sequence[int]) -> None:
        """See `Drafter.commit`."""
        super().commit(token_ids)
        self.outside = []


class Text:
    """One text. Its calls are answered in order.

    Args:
        engine: whose target reads it.
        opening: its beginning.

    Attributes:
        opened: the number of prompt tokens that were in the prefix cache, once the prompt has been read.
    """

    def __init__(self, engine: RapidEngine, opening: Opening) -> None:
        self._model, self._opening = engine.target, opening
        _require_room(engine, opening)
        device = self._model.device
        law = Law(
            "target",
            temperature=opening.temperature,
            top_k=opening.top_k,
            top_p=opening.top_p,
            min_p=opening.min_p,
            ops=ops_for(device),
        )
        none = Penalties(1.0, opening.token_ids, opening.vocab_size, device)
        self._rules = Rules(law, opening.vocab_size, none, opening.eos, by_host=True)
        self.opened: Future[int] = Future()
        self._calls: deque[Call] = deque()
        self._arrived: Future[None] = Future()
        self._lock = threading.Lock()
        self._path: list[int] = []  # the draft tokens that have been read since the last commit
        self._left = opening.new_tokens
        self.job: Job = engine.compute(self._model, opening.token_ids, opening.new_tokens, self._steps)

    def put(self, call: Call) -> None:
        """Ask. The answer, or an error, arrives in `call.done`.

        Raises:
            ConfigurationError: a token id is none.
        """
        given = [*call.commit, *call.draft]
        if call.have < 0 or given and not 0 <= min(given) <= max(given) < self._opening.vocab_size:
            raise ConfigurationError(f"tokens that are none of {self._model.name}: {shown(given)}")
        with self._lock:
            self._calls.append(call)
            if not self._arrived.done():
                self._arrived.set_result(None)

    def _steps(self, readers: RequestReaders) -> Steps[None]:
        opening = self._opening
        try:
            capacity = len(opening.token_ids) + opening.new_tokens
            reader = readers.open(self._model, "drafter", opening.token_ids, capacity)
            yield from reader.prefill()
            drafter = BestOnly(reader, self._rules, opening.best)
            self.opened.set_result(reader.reused)
            while True:
                with self._lock:
                    call = self._calls[0] if self._calls else None
                    arrived = self._arrived = Future()
                if call is None:
                    yield arrived
                    continue
                answered = yield from self._answer(drafter, call)
                self._calls.popleft()
                call.done.set_result(answered)
        except Exception as error:
            self._fail(error)
            raise
        finally:
            self._fail(EngineClosedError("the drafter of this text"))

    def _answer(self, drafter: BestOnly, call: Call) -> Steps[Answered]:
        if call.commit:
            drafter.commit(call.commit)
            self._path, self._left = [], self._left - len(call.commit)
        if len(call.draft) + call.ahead > self._left or self._left < 0:
            raise ConfigurationError(
                f"a text for {self._opening.new_tokens:,} new tokens is asked to grow beyond them: open it for more"
            )
        drafter.keep(_common(self._path, call.draft))
        self._path = list(call.draft)
        yield from drafter.score(self._path)
        law, eos = self._rules.law, self._rules.eos_token_ids
        shares = iter(call.shares)
        end = len(call.draft) + call.ahead
        while len(self._path) < end and not (self._path and self._path[-1] in eos):
            logits = drafter.logits(len(self._path))
            distribution = law.propose(logits)
            token = law.ops.best(logits) if distribution is None else law.ops.draw(distribution, next(shares))
            self._path.append(token)
            if token not in eos:
                yield from drafter.score(self._path)
        known = len(drafter.outside)
        rows = [drafter.logits(position) for position in range(call.have, known)]
        return Answered(self._path[len(call.draft) :], rows, drafter.outside[call.have :])

    def _fail(self, error: BaseException) -> None:
        if not self.opened.done():
            self.opened.set_exception(error)
        with self._lock:
            calls, self._calls = self._calls, deque()
        for call in calls:
            call.done.set_exception(error)


class Texts(SharedResource):
    """The open texts of an engine, by their names. All methods are called in one event loop.

    Args:
        engine: its target drafts.
        idle_s: seconds after which a text that nobody asks about is closed.
    """

    def __init__(self, engine: RapidEngine, idle_s: float = IDLE_S) -> None:
        self._engine, self._idle_s = engine, idle_s
        self._open: dict[str, tuple[Text, asyncio.TimerHandle]] = {}

    def __len__(self) -> int:
        return len(self._open)

    async def open(self, opening: Opening) -> tuple[str, int]:
        """Read a prompt. Return the text's name, and how many tokens of it were in the prefix cache.

        Raises:
            ContextOverflowError, ConfigurationError, OutOfMemoryError: it cannot be read.
        """
        if len(self._open) >= MOST_TEXTS:
            raise RemoteError(f"{MOST_TEXTS} texts are open at this drafter: ask later", code="refused")
        text = Text(self._engine, opening)
        name = secrets.token_urlsafe(16)
        self._touch(name, text)
        try:
            return name, await _or_ended(text.opened, text.job)
        except BaseException:
            self.close(name)
            raise

    async def read(self, name: str, call: Call) -> Answered:
        """Answer a call.

        Raises:
            RemoteError: there is no such text, or no more.
        """
        if name not in self._open:
            raise RemoteError(
                f"the drafter has no text {name!r:.40}: it was closed, or the server has been started anew",
                code="answer",
            )
        text = self._open[name][0]
        self._touch(name, text)
        text.put(call)
        try:
            return await _or_ended(call.done, text.job)
        except Exception:
            self.close(name)
            raise

    def close(self, name: str) -> None:
        """Forget a text; one that is not there is none to forget."""
        found = self._open.pop(name, None)
        if found is not None:
            text, timer = found
            timer.cancel()
            text.job.cancel()

    def _touch(self, name: str, text: Text) -> None:
        if name in self._open:
            self._open[name][1].cancel()
        self._open[name] = (text, asyncio.get_running_loop().call_later(self._idle_s, self.close, name))


async def _or_ended(future: Future[T], job: Job) -> T:
    """Return a future's result, unless the job ends before it: one that never began says nothing itself."""
    wanted = asyncio.wrap_future(future)
    ended = asyncio.ensure_future(job.outbox.await_ended())
    both: list[asyncio.Future[Any]] = [wanted, ended]
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    ended.cancel()
    if not wanted.done():
        wanted.cancel()
        event = await job.outbox.aget()
        raise (event.error if isinstance(event, Ended) else None) or EngineClosedError("the drafter of this text")
    return await wanted


def _require_room(engine: RapidEngine, opening: Opening) -> None:
    model, ids = engine.target, opening.token_ids
    if len(ids) + opening.new_tokens > model.context_window:
        raise ContextOverflowError(
            model=model.name,
            prompt_tokens=len(ids),
            new_tokens=opening.new_tokens,
            context_window=model.context_window,
        )
    if opening.new_tokens < 1:
        raise ConfigurationError(f"a text for {opening.new_tokens} new tokens: at least one has to fit")
    if not 0 < opening.vocab_size <= model.vocab_size:
        raise ConfigurationError(
            f"rows of {opening.vocab_size:,} tokens are asked for, and {model.name} has {model.vocab_size:,}"
        )
    if not ids or min(ids) < 0 or max(ids) >= opening.vocab_size:
        raise ConfigurationError(f"a text of {len(ids):,} ids that are not all tokens of {model.name}")


def _common(some: Sequence[int], others: Sequence[int]) -> int:
    """Return how many first tokens two sequences share."""
    same = 0
    for one, other in zip(some, others, strict=False):
        if one != other:
            break
        same += 1
    return same
