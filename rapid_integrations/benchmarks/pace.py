"""Measure the pace of a running answer while another request reads a new document."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from rapid_integrations.benchmarks.ways_to_ask import Asking, drain_in_turn, in_turn
from rapid_integrations.config import SamplingParams
from rapid_integrations.engine.engine import RapidEngine


@dataclass(frozen=True)
class Pace:
    """What both requests notice of each other.

    Attributes:
        alone_tps, beside_tps: tokens per second of the answer, alone and while the other request ran.
        alone_gap_s, beside_gap_s: the longest time without a token.
        beside_tokens: tokens of the answer while the other request ran.
        other_alone_s, other_beside_s: the other request's time to its only token, alone and beside the answer. It is
            prepared before (retrieval computes in the caller's thread), so that its prefill begins at once.
    """

    alone_tps: float
    alone_gap_s: float
    beside_tps: float
    beside_gap_s: float
    beside_tokens: int
    other_alone_s: float
    other_beside_s: float


_Moment = tuple[float, int]  # time of a piece, its number of tokens


def measure_pace(engine: RapidEngine, running: Asking, other: Asking) -> Pace:
    """Let `running` answer alone and then beside `other`, which reads its document and writes one token.

    The document of `running` is cached beforehand. The prefix cache is cleared first and last.
    """
    short = replace(other, sampling=SamplingParams(max_new_tokens=1))
    engine.clear_prefix_cache()
    in_turn(engine, [replace(running, sampling=SamplingParams(max_new_tokens=1))])
    begin, moments = _moments(engine, running)
    alone_tps, alone_gap_s, _ = _pace(moments, begin, moments[-1][0])
    begin, end, moments = _beside(engine, running, short)
    beside_tps, beside_gap_s, tokens = _pace(moments, begin, min(end, moments[-1][0]))
    engine.clear_prefix_cache()
    prepared = short.stream(engine)
    start = time.perf_counter()
    drain_in_turn([prepared])
    other_alone_s = time.perf_counter() - start
    engine.clear_prefix_cache()
    return Pace(alone_tps, alone_gap_s, beside_tps, beside_gap_s, tokens, other_alone_s, end - begin)


def _moments(engine: RapidEngine, asking: Asking) -> tuple[float, list[_Moment]]:
    """Answer. Return when the first piece came, and the moments of the later ones, or of the only one."""
    with asking.stream(engine) as stream:
        first = next(stream)
        begin = time.perf_counter()
        moments = [(time.perf_counter(), len(piece.token_ids)) for piece in stream]
    return begin, moments or [(begin, len(first.token_ids))]


def _beside(engine: RapidEngine, asking: Asking, other: Asking) -> tuple[float, float, list[_Moment]]:
    """Answer while `other` runs. Return when that began and ended, and the moments of the pieces in between."""
    prepared = other.stream(engine)

    def ask() -> float:
        drain_in_turn([prepared])
        return time.perf_counter()

    with ThreadPoolExecutor(1) as pool, asking.stream(engine) as stream:
        first = next(stream)
        begin = time.perf_counter()
        ended = pool.submit(ask)
        moments = []
        for piece in stream:
            moments.append((time.perf_counter(), len(piece.token_ids)))
            if ended.done():
                break
        end = ended.result()
    return begin, end, moments or [(begin, len(first.token_ids))]


def _pace(moments: Sequence[_Moment], begin: float, end: float) -> tuple[float, float, int]:
    """Return tokens per second, the longest time without a token, and the tokens, from `begin` to `end`."""
    inside = [(at, tokens) for at, tokens in moments if at <= end]
    times = [begin, *(at for at, _ in inside), end]
    gap = max(later - earlier for earlier, later in zip(times, times[1:], strict=False))
    tokens = sum(count for _, count in inside)
    return (tokens / (end - begin) if end > begin else 0.0), gap, tokens
