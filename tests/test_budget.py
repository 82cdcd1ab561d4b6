"""What is left of combinations by day: each value still meets each value of every other parameter."""

import itertools
import subprocess
import sys
from collections import Counter
from types import SimpleNamespace

import pytest

from tests.conftest import leave_cases_for_later, leave_combinations_for_the_night
from tests.toys import budget
from tests.toys.budget import by_day, covering, pairs, spread
from tests.toys.repository import ROOT

SHAPES = [(2,), (3, 1), (2, 2, 2), (5, 3, 2), (4, 4, 4), (9, 3, 2, 2), (2,) * 7, (6, 5, 4, 3, 2)]


def met(cases, together):
    """Return every choice of so many parameters with their values that some case holds."""
    return {choice for case in cases for choice in itertools.combinations(enumerate(case), together)}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_each_value_meets_each_value_of_every_other_parameter(shape):
    cases = list(itertools.product(*(range(size) for size in shape)))
    chosen = [cases[place] for place in covering(cases)]
    together = min(2, len(shape))
    assert met(chosen, together) == met(cases, together)
    assert len(chosen) == len(set(chosen))
    if len(shape) > 2:
        largest, second = sorted(shape)[:-3:-1]
        assert largest * second <= len(chosen) < 0.8 * len(cases)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_each_value_is_met(shape):
    cases = list(itertools.product(*(range(size) for size in shape)))
    chosen = [cases[place] for place in covering(cases, 1)]
    assert met(chosen, 1) == met(cases, 1)
    assert len(chosen) == max(shape)
    for column in range(len(shape)):  # none is met all the time while another is met once
        counts = [sum(case[column] == value for case in chosen) for value in range(shape[column])]
        assert max(counts) - min(counts) <= 1


def test_only_what_meets_in_the_cases_is_needed():
    cases = [(a, b, c) for a, b, c in itertools.product(range(4), range(4), range(3)) if a != b]
    assert met([cases[place] for place in covering(cases)], 2) == met(cases, 2)
    assert covering([]) == [] and covering([()]) == [0]


def test_all_at_night_and_each_value_in_a_hurry(monkeypatch):
    cases = list(itertools.product(range(4), range(3), range(2)))
    for name, kept in (("usual", covering(cases)), ("nightly", list(range(24))), ("quick", covering(cases, 1))):
        monkeypatch.setattr(budget, "BUDGET", name)
        assert by_day(cases) == kept
        assert pairs("abcd", "efg", "hi") == [list(itertools.product("abcd", "efg", "hi"))[place] for place in kept]


@pytest.mark.process
def test_every_worker_chooses_the_same():
    program = "from tests.toys.budget import pairs; print(pairs('abcd', 'efg', ['hi', None]))"
    said = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1


class Item:
    """What the marking of combinations asks of a test."""

    parent = "a class"

    def __init__(self, marks, **params):
        self.originalname = f"test_{marks[0].name}"
        self.callspec = SimpleNamespace(params=params)
        self._marks = marks

    def iter_markers(self, name):
        return (mark for mark in self._marks if mark.name == name)

    def get_closest_marker(self, name):
        return next(self.iter_markers(name), None)

    def add_marker(self, mark):
        self._marks = [*self._marks, mark.mark]


def test_marked_tests_are_thinned(monkeypatch):
    monkeypatch.setattr(budget, "BUDGET", "usual")
    values = (object(), object(), object()), ((1, 1), (1, 2), (3, 3)), ([], {}, 0)
    together = pytest.mark.parametrize(("b", "c"), ...).mark
    items = []
    for mark in (pytest.mark.pairs, pytest.mark.once, pytest.mark.long):
        for a, (b, c), d in itertools.product(*values):
            slow = [pytest.mark.slow.mark] if b == 3 else []
            items.append(Item([mark.mark, together, *slow], a=a, b=b, c=c, d=d))
    leave_combinations_for_the_night(items)
    day = [item for item in items if item.get_closest_marker("slow") is None]
    left = Counter(item.originalname for item in day)
    assert 9 <= left["test_pairs"] < 14 and left["test_once"] == 3 and left["test_long"] == 18
    # What is given together is one parameter, which meets every value of the others.
    assert len({repr(item.callspec.params) for item in day if item.originalname == "test_pairs"}) == left["test_pairs"]
    met_by = {
        (p["b"], p["c"], repr(p["d"])) for p in (i.callspec.params for i in day if i.originalname == "test_pairs")
    }
    assert len(met_by) == 6


def test_in_a_hurry_each_value_is_met_and_of_many_cases_a_few():
    each, few, long = pytest.mark.pairs.mark, pytest.mark.in_a_hurry(2).mark, pytest.mark.long.mark
    items = [Item([mark], a=a, b=b) for mark in (each, few, long) for a in range(4) for b in range(3)]
    leave_cases_for_later(items)
    kept = [item for item in items if item.get_closest_marker("long") is None]
    found = {(item.originalname, *item.callspec.params.values()) for item in kept}
    assert found == {
        *(("test_pairs", a, b) for a, b in ((0, 0), (1, 1), (2, 2), (3, 0))),
        *(("test_in_a_hurry", a, b) for a, b in ((0, 0), (2, 2))),
    }


def test_cases_are_spread_over_all():
    assert spread([*range(7)], 3) == [0, 2, 4] and spread([*range(3)], 3) == spread([*range(3)], 9) == [0, 1, 2]


def test_values_that_cannot_be_written_down_are_told_apart():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    values = deep, [deep], 10**5000, 10**5001
    items = [Item([pytest.mark.pairs.mark], a=a, b=b) for a in values for b in range(2)]
    leave_cases_for_later(items)
    kept = [item.callspec.params for item in items if item.get_closest_marker("long") is None]
    assert [next(place for place, each in enumerate(values) if each is case["a"]) for case in kept] == [0, 1, 2, 3]
