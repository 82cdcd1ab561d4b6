"""How much is tried of what has no end: RAPID_TESTS=quick, usual or nightly."""

import itertools
import os
from collections import Counter

import pytest
from hypothesis import HealthCheck, settings

BUDGET = os.environ.get("RAPID_TESTS", "usual")
_SHARE = {"quick": 0.05, "usual": 0.1, "nightly": 1.0}[BUDGET]
_LEAST = 5  # examples: what hypothesis tries first is what is likeliest to be wrong


def examples(nightly: int) -> int:
    """Return how many examples of a property to try, of those that are tried at night."""
    return max(_LEAST, round(nightly * _SHARE))


def in_turn(values, number):
    """Return every second of `values` by day, from the first or the second on as `number` says, and all at night.

    Of all combinations of two parameters, those of neighbours in one of them cover every value of the other.
    """
    return values if BUDGET == "nightly" else values[number % 2 :: 2]


def left_for_the_night(place, one_in):
    """Return whether a case is left out by day: one of so many in a row is tried then, and half as many in a hurry.

    The place of a combination is the sum of its parameters' places: a value of one still meets several of the other.
    """
    return place % {"quick": 2 * one_in, "usual": one_in, "nightly": 1}[BUDGET] != 0


def covering(cases, together=2):
    """Return the places of a few cases in which the values of so many parameters meet wherever they do in any case.

    Args:
        cases: Each a tuple with one value for each parameter; equal values are the same value.
        together: 2, so that each value of a parameter meets each value of every other one; 1, so that each is met.
            Fewer parameters than that meet in full.

    Returns:
        Ascending places. The same cases give the same places in every process: it depends on no hash.
    """
    cases = [tuple(case) for case in cases]
    open_ = [set(itertools.combinations(enumerate(case), min(together, len(case)))) for case in cases]
    used = Counter()  # of cases that cover as much, one whose values are rare comes first: none is met all the time
    chosen = []
    while (most := max(map(len, open_), default=0)) > 0:
        rarest = min(
            (sum(used[value] for value in enumerate(cases[place])), place)
            for place, left in enumerate(open_)
            if len(left) == most
        )
        place = rarest[1]
        chosen.append(place)
        used.update(enumerate(cases[place]))
        covered = open_[place]
        open_ = [left - covered for left in open_]
    return sorted(chosen)


def by_day(cases, together=2):
    """Return the places of the cases that are tried: of `covering` by day, all at night.

    In a hurry each value is met once.
    """
    cases = list(cases)
    return list(range(len(cases))) if BUDGET == "nightly" else covering(cases, 1 if BUDGET == "quick" else together)


def spread(cases, most):
    """Return at most so many of `cases`, the first one and others at even distances."""
    return [cases[place * len(cases) // most] for place in range(most)] if len(cases) > most else cases


def pairs(*parameters):
    """Return combinations with one of each parameter's values: all at night, by day a few that hold every pair."""
    cases = list(itertools.product(*parameters))
    return [cases[place] for place in by_day(itertools.product(*(range(len(values)) for values in parameters)))]


# No test depends on the clock, or on what an earlier run has found; a failure prints how to repeat it.
settings.register_profile(
    BUDGET,
    max_examples=examples(100),
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(BUDGET)


def sampled(cases, one_in):
    """Return a generated page of cases as parameters: every `one_in`-th is usual, the others are for the night."""
    return [
        pytest.param(case, marks=() if number % one_in == 0 else pytest.mark.slow) for number, case in enumerate(cases)
    ]
