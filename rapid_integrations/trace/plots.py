"""Compute the geometry of the page's two plots: bars per round, and seconds over the answer. The page draws them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from rapid_integrations.outputs import TracedRound

WIDTH, HEIGHT = 400, 170  # of the plotting area, in SVG units
MAX_BARS = 100


@dataclass(frozen=True)
class Tick:
    """A label at a place along an axis, in SVG units."""

    at: float
    label: str


@dataclass(frozen=True)
class Bar:
    """Rounds `first` to `last`: accepted and rejected draft tokens (means of a round), and the heights of the bars."""

    x: float
    width: float
    accepted_height: float
    rejected_height: float
    label: str


@dataclass(frozen=True)
class Bars:
    """Draft tokens by round. If there are many rounds, `per_bar` of them share a bar."""

    bars: tuple[Bar, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    per_bar: int


@dataclass(frozen=True)
class Area:
    """A phase's share of the time, as the points of an SVG polygon."""

    name: str
    points: str
    seconds: float


@dataclass(frozen=True)
class Times:
    """Seconds of decoding over output tokens, with the phases stacked."""

    areas: tuple[Area, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


def acceptance_bars(rounds: Sequence[TracedRound]) -> Bars:
    """Return how many tokens were drafted in each round, and how many were accepted."""
    per_bar = max(1, math.ceil(len(rounds) / MAX_BARS))
    groups = [rounds[start : start + per_bar] for start in range(0, len(rounds), per_bar)]
    most = max((sum(each.drafted for each in group) / len(group) for group in groups), default=0.0)
    ticks, top = _ticks(most, whole=True)
    step = WIDTH / max(len(groups), 1)
    bars = []
    for index, group in enumerate(groups):
        drafted = sum(each.drafted for each in group) / len(group)
        accepted = sum(each.accepted for each in group) / len(group)
        first = index * per_bar + 1
        which = f"round {first}" if len(group) == 1 else f"rounds {first} to {first + len(group) - 1} (mean)"
        bars.append(
            Bar(
                x=index * step + min(1.0, step / 8),
                width=step - 2 * min(1.0, step / 8),
                accepted_height=HEIGHT * accepted / top,
                rejected_height=HEIGHT * (drafted - accepted) / top,
                label=f"{which}: {accepted:g} of {drafted:g} draft tokens accepted",
            )
        )
    numbers, _ = _ticks(len(rounds), whole=True)
    x_ticks = [Tick((number - 0.5) / per_bar * step, f"{number:g}") for number in numbers if 1 <= number <= len(rounds)]
    return Bars(tuple(bars), tuple(x_ticks), _y_ticks(ticks, top), per_bar)


def time_areas(rounds: Sequence[TracedRound]) -> Times:
    """Return how the seconds of decoding add up: drafting, scoring, verifying, and the rest."""
    tokens = [0, *accumulate(len(each.tokens) for each in rounds)]
    elapsed = [0.0, *(each.elapsed_s for each in rounds)]
    phases = {
        "drafting": [0.0, *accumulate(each.propose_s for each in rounds)],
        "scoring": [0.0, *accumulate(each.score_s for each in rounds)],
        "verifying": [0.0, *accumulate(each.verify_s for each in rounds)],
    }
    y_ticks, top = _ticks(elapsed[-1])
    x_ticks, _ = _ticks(tokens[-1], whole=True)
    right = max(tokens[-1], 1)
    below = [0.0] * len(tokens)
    areas = []
    for name, seconds in phases.items():
        # What a phase is charged with can exceed the elapsed time by the observer's own reading of clocks.
        above = [min(low + own, total) for low, own, total in zip(below, seconds, elapsed, strict=True)]
        areas.append(_area(name, tokens, below, above, right, top))
        below = above
    areas.append(_area("the rest", tokens, below, elapsed, right, top))
    return Times(
        tuple(area for area in areas if area.seconds > 0),
        tuple(Tick(WIDTH * tick / right, f"{tick:g}") for tick in x_ticks if tick <= right),
        _y_ticks(y_ticks, top),
    )


def _area(
    name: str, tokens: Sequence[int], below: Sequence[float], above: Sequence[float], right: float, top: float
) -> Area:
    def points(heights: Sequence[float]) -> list[str]:
        return [
            f"{WIDTH * token / right:.1f},{HEIGHT - HEIGHT * height / top:.1f}"
            for token, height in zip(tokens, heights, strict=True)
        ]

    return Area(name, " ".join(points(above) + points(below)[::-1]), above[-1] - below[-1])


def _ticks(most: float, whole: bool = False) -> tuple[list[float], float]:
    """Return at most six round numbers from 0, and the end of the axis: at or above `most`, and above 0."""
    if most <= 0:
        return [0.0], 1.0
    power = 10.0 ** math.floor(math.log10(most))
    step = next(step for step in (power / 5, power / 2, power, 2 * power) if most / step <= 5)
    if whole:
        step = max(1.0, step)
    ticks = [round(step * count, 10) for count in range(int(most / step) + 1)]
    return ticks, max(most, ticks[-1])


def _y_ticks(ticks: Sequence[float], top: float) -> tuple[Tick, ...]:
    return tuple(Tick(HEIGHT - HEIGHT * tick / top, f"{tick:g}") for tick in ticks)
