"""After requests of every length and outcome: no thread, no file handle and no KV cache more than before.

`make test-memory` asks 200 of them and looks at the process's memory (docs/robustness.md has the figure).
"""

import ctypes
import gc
import json
import os
import sys
import time
import weakref

import psutil
import pytest

from rapid_integrations import CompressionConfig
from rapid_integrations.cache import KVCache
from rapid_integrations.cache.segments import Buffers
from tests.accidents.mixed_requests import OUTCOMES, one_request
from tests.toys.embedder import HashEmbedder
from tests.toys.leaks import settled, threads
from tests.toys.light_model import light_engine

BUDGET = 4_000_000  # of kept prefixes


def engine(**options):
    return light_engine(
        config={"max_position_embeddings": 4096},
        embedder=HashEmbedder(),
        compression=CompressionConfig(chunk_tokens=64, min_tokens=64, min_chunks=2),
        **{"prefix_cache_bytes": BUDGET, **options},
    )


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_nothing_is_left_behind(outcome, tmp_path, caches):  # noqa: F811
    before = threads()
    with engine(prefix_cache_dir=tmp_path / "prefixes", embedding_cache=tmp_path / "embeddings.sqlite") as running:
        for number in range(2):
            one_request(running, number, outcome)
        gc.collect()
        process = psutil.Process()
        handles = process.num_fds() if hasattr(process, "num_fds") else process.num_handles()
        for number in range(2, 6):
            one_request(running, number, outcome)
        gc.collect()
        count = process.num_fds if hasattr(process, "num_fds") else process.num_handles
        assert settled(lambda: count() <= handles, True)
        assert running._prefixes.memory.nbytes <= BUDGET
    assert settled(threads, before) == before
    assert settled(lambda: sum(cache.nbytes for cache in caches), 0) == 0


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_rows_are_freed_without_the_garbage_collector(outcome, monkeypatch):
    """It looks seldom for large objects, and knows nothing of how much memory a cache holds."""
    made, make = [], Buffers.__init__

    def noted(self, *args, **kwargs):
        make(self, *args, **kwargs)
        made.append(weakref.ref(self))

    with engine(prefix_cache_bytes=0) as running:
        one_request(running, 0, outcome)
        gc.collect()
        gc.disable()
        try:
            monkeypatch.setattr(Buffers, "__init__", noted)
            for number in range(1, 4):
                one_request(running, number, outcome)
            end = time.monotonic() + 60
            while any(each() is not None for each in made) and time.monotonic() < end:
                time.sleep(0.01)  # a cancelled step ends a little later
            assert not [each for each in made if each() is not None]
            assert bool(made) == (outcome not in ("over the window", "empty"))  # which are refused before
        finally:
            gc.enable()


@pytest.mark.slow
def test_memory_stays_level_over_two_hundred_requests():
    """The plot goes to the file that RAPID_MEMORY_PLOT names.

    What the allocator holds although nobody uses it is given back before each look, and `make test-memory` allows one
    arena: with glibc's default, an arena for each thread, it keeps some 25 MB more by and by.
    """
    process, megabytes = psutil.Process(), []
    with engine() as running:
        for number in range(200):
            one_request(running, number, OUTCOMES[number % len(OUTCOMES)])
            if number % 5 == 4:
                gc.collect()
                _give_free_memory_back()
                megabytes.append(process.memory_info().rss / 2**20)
    first, last = (sorted(part)[len(part) // 2] for part in (megabytes[10:20], megabytes[30:]))
    summary = {"after 10": megabytes[1], "50-100": first, "150-200": last, "most": max(megabytes)}
    print("\n" + json.dumps({name: round(value, 1) for name, value in summary.items()}))
    if path := os.environ.get("RAPID_MEMORY_PLOT"):
        _plot(megabytes, path)
    assert last - first < 10, summary


def _give_free_memory_back():
    if sys.platform.startswith("linux"):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _plot(megabytes, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot(range(5, 5 * len(megabytes) + 1, 5), megabytes, linewidth=1.2)
    axes.set(
        xlabel="requests", ylabel="resident memory, MiB", ylim=(0, 1.15 * max(megabytes)), xlim=(0, 5 * len(megabytes))
    )
    axes.set_title("200 requests of thirteen outcomes, tiny models, 4 MB of kept prefixes", fontsize=9)
    figure.savefig(path, dpi=120)


def test_the_fixture_sees_caches(caches):  # noqa: F811
    cache = KVCache(1, 10)
    assert cache in caches
