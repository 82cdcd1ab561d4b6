"""Scores of texts that follow prompts: a model reads them, all together in the worker's passes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from rapid_integrations.decoding.passes import Steps, Wanted
from rapid_integrations.decoding.prefixes import RequestReaders
from rapid_integrations.decoding.reader import first_columns
from rapid_integrations.engine.engine import RapidEngine
from rapid_integrations.engine.job import Job
from rapid_integrations.engine.outbox import Ended
from rapid_integrations.errors import ContextOverflowError


@dataclass(frozen=True)
class Follows:
    """Tokens that follow a prompt, and what is wanted of the model's distributions there.

    Attributes:
        prompt_ids: at least one token.
        token_ids: the tokens behind it; may be empty.
        read: is given the log-probabilities (len(token_ids) + 1, V) of each token and of the one behind them.
    """

    prompt_ids: Sequence[int]
    token_ids: Sequence[int]
    read: Callable[[Tensor], float]


def probability_of(prompt_ids: Sequence[int], token_ids: Sequence[int]) -> Follows:
    """Ask for the probability of `token_ids` behind a prompt: the geometric mean of the tokens' own, in [0, 1].

    The product of the tokens' probabilities would above all say how many there are. Without tokens it is 0.
    """

    def read(log_p: Tensor) -> float:  # (tokens + 1, V)
        if not token_ids:
            return 0.0
        own = log_p[:-1].gather(1, torch.tensor(token_ids, device=log_p.device)[:, None])  # (tokens, 1)
        return math.exp(float(own.mean()))

    return Follows(prompt_ids, token_ids, read)


def preference_of(prompt_ids: Sequence[int], those: Sequence[int], others: Sequence[int]) -> Follows:
    """Ask for the probability that one of `those` tokens is next, given that it is one of `those` or `others`."""

    def read(log_p: Tensor) -> float:  # (1, V)
        one, other = (float(log_p[0, list(tokens)].logsumexp(0)) for tokens in (those, others))
        return 0.5 * (1.0 + math.tanh((one - other) / 2))

    return Follows(prompt_ids, (), read)


def scores(engine: RapidEngine, asked: Sequence[Follows]) -> list[float]:
    """Return what the engine's target says of each. All are read together, and beginnings that they share once.

    Raises:
        ContextOverflowError: prompt and tokens exceed the target's context window.
        ConfigurationError: the engine is one at a server, which gives no probabilities.
        OutOfMemoryError, EngineClosedError: see `RapidEngine.compute`.
    """
    for each in asked:
        _require_room(engine, each)
    found: list[float] = [0.0] * len(asked)
    jobs: list[Job] = []
    group = _Group()
    try:
        for number, each in enumerate(asked):
            steps = partial(_read, engine, each, partial(found.__setitem__, number), group)
            jobs.append(engine.compute(engine.target, each.prompt_ids, len(each.token_ids) + 1, steps))
        for job in jobs:
            job.outbox.wait_until_ended()
            ended = job.outbox.get()
            if isinstance(ended, Ended) and ended.error is not None:
                raise ended.error
    finally:
        for job in jobs:
            job.cancel()  # does nothing to one that has ended
    return found


@dataclass
class _Group:
    """Texts that are scored together: `reading` have begun with their prompts and not ended."""

    reading: int = 0


def _read(
    engine: RapidEngine, asked: Follows, take: Callable[[float], None], group: _Group, readers: RequestReaders
) -> Steps[None]:
    model = engine.target
    capacity = len(asked.prompt_ids) + len(asked.token_ids) + 1
    reader = readers.open(model, "drafter", asked.prompt_ids, capacity)
    group.reading += 1
    try:
        yield from reader.prefill()
    finally:
        group.reading -= 1
    yield None
    while group.reading:  # prompts are read one by one; what follows all of them is read in one pass
        yield None
    rows = reader.wants(list(asked.token_ids), keep=len(asked.token_ids) + 1)
    (logits,) = yield Wanted(model, (rows,))
    take(asked.read(first_columns(logits, model.vocab_size).float().log_softmax(-1)))


def _require_room(engine: RapidEngine, asked: Follows) -> None:
    window, tokens, new = engine.target.context_window, len(asked.prompt_ids), len(asked.token_ids)
    if tokens + new > window:
        raise ContextOverflowError(
            model=engine.target.name, prompt_tokens=tokens, new_tokens=new, context_window=window
        )
