"""What holds for every test: how much is tried, kernels that are compiled once, and no process that is not declared."""

import asyncio
import gc
import os
import signal
import sys
import weakref
from collections import defaultdict

import pytest

from tests.toys.budget import BUDGET, by_day, covering, left_for_the_night, spread
from tests.toys.children import Children

# A shell starts what runs in its background with Ctrl-C ignored. Tests of Ctrl-C, and the children that they start,
# would then wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_allowed = True
_OURS = ("rapid_integrations.models.isolated", "rapid_integrations.documents", "pip")  # what the product starts itself


def _watch(event, arguments):
    if event == "subprocess.Popen" and not _allowed:
        executable, given = arguments[0], [str(each) for each in arguments[1]]
        python = sys.executable in (executable, given[0]) and not any(name in " ".join(given) for name in _OURS)
        if python:
            raise RuntimeError(f"a test that starts a process carries the marker `process`: {given[:4]}")


sys.addaudithook(_watch)
_STARTING = {"children", "terminal", "portable"}  # fixtures that start a command, or a compiler


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Let the collector of garbage look at what tests make, and only at that.

    A million objects come with the imports and stay: looking through them takes a quarter of a second each time.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_configure(config):
    """Hide GPUs from tests that are not theirs: a request with device="auto" would run there, and not on kernels."""
    if config.option.markexpr.strip() != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    # LlamaIndex's `asyncio_run` takes the loop that Python makes for a main thread that has never set one, and leaves
    # it open. Whichever test ran when it was collected failed for it.
    asyncio.set_event_loop(None)


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items):
    """Mark what a fixture starts and what is left for the night; begin with what takes longest.

    Then no core waits for it at the end. One worker has most of what starts processes: the interpreter of `children` is
    started once, too.
    """
    values = defaultdict(dict)  # of each parameter of a test: the values that were met before, with their places
    for item in items:
        if _STARTING.intersection(item.fixturenames):
            item.add_marker(pytest.mark.process)
        if (turn := item.get_closest_marker("in_turn")) is not None:
            place = 0
            for name, value in item.callspec.params.items():
                met = values[item.function, name]
                place += met.setdefault(repr(value), len(met))
            if left_for_the_night(place, *turn.args):
                item.add_marker(pytest.mark.slow)
    leave_combinations_for_the_night(items)
    if BUDGET == "quick":
        leave_cases_for_later(items)
    yield  # what the markers leave out is gone
    items.sort(key=lambda item: item.get_closest_marker("process") is None)  # otherwise in their order


def leave_combinations_for_the_night(items):
    """Mark combinations of a test with `pairs` or `once` that are not needed by day."""
    tests = defaultdict(list)
    for item in items:
        for name, together in (("pairs", 2), ("once", 1)):
            if item.get_closest_marker(name) is not None and item.get_closest_marker("slow") is None:
                tests[item.parent, item.originalname, together].append(item)
    for (*_, together), cases in tests.items():
        kept = by_day(map(_values, cases), together)
        for place in set(range(len(cases))).difference(kept):
            cases[place].add_marker(pytest.mark.slow)


def leave_cases_for_later(items):
    """Mark cases that `make test-quick` leaves to `make test`.

    Of a test's combinations of parameters those are tried in a hurry in which each value of each parameter is met once,
    and with `in_a_hurry` so many of them, spread over all.
    """
    tests = defaultdict(list)
    for item in items:
        left_out = any(item.get_closest_marker(name) is not None for name in ("slow", "long", "process"))
        few = item.get_closest_marker("in_a_hurry") is not None
        if not left_out and hasattr(item, "callspec") and (few or len(item.callspec.params) > 1):
            tests[item.parent, item.originalname].append(item)
    for cases in tests.values():
        kept = covering(map(_values, cases), 1)
        if (few := cases[0].get_closest_marker("in_a_hurry")) is not None:
            kept = spread(kept, *few.args)
        for place in set(range(len(cases))).difference(kept):
            cases[place].add_marker(pytest.mark.long)


def _values(item):
    """Return the values of a test's parameters; those that one `parametrize` gives together are one."""
    given = {name: _shown(value) for name, value in item.callspec.params.items()}
    joined = []
    for mark in item.iter_markers("parametrize"):
        names = mark.args[0].split(",") if isinstance(mark.args[0], str) else mark.args[0]
        joined.append(tuple(given.pop(name.strip()) for name in names))
    return (*joined, *given.values())  # those of fixtures, each by itself


def _shown(value):
    try:
        return repr(value)
    except (RecursionError, ValueError):  # of what holds itself or is very deep, and of huge integers
        return f"{type(value).__name__} {id(value)}"


@pytest.fixture(scope="session", autouse=True)
def kernels():
    """Compile them, if that is to be done, before a test gives itself a cache folder of its own.

    Returns:
        Their folder, for a test to copy into such a cache folder if other processes are to find them there.
    """
    from rapid_integrations.config import home
    from rapid_integrations.kernels.cpu import native_library

    native_library()
    return home() / "kernels"


@pytest.fixture(scope="session")
def children():
    """Processes of their own, without the time that importing takes."""
    running = Children()
    yield running
    running.end()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    """Let only tests that say so start an interpreter, which takes seconds: `make test-quick` leaves them out."""
    global _allowed
    _allowed = item.get_closest_marker("process") is not None
    yield
    _allowed = True


@pytest.fixture
def caches(monkeypatch):
    """Every KV cache made during the test, held weakly."""
    from rapid_integrations.cache import KVCache

    made = weakref.WeakSet()
    original = KVCache.__init__

    def remembered(self, *args, **kwargs):
        original(self, *args, **kwargs)
        made.add(self)

    monkeypatch.setattr(KVCache, "__init__", remembered)
    return made
