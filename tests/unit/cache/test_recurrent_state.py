"""The states of a text: where they are kept, and from where a text goes on."""

import pytest
import torch

from rapid_integrations.cache import KVCache, RecurrentState, distinct_bytes
from rapid_integrations.cache.recurrent_state import LEAST_EVERY, MOST_EVERY, spacing
from rapid_integrations.errors import CacheError


def cache_of(every=16):
    return KVCache(0, 1000, state=RecurrentState(every))


def read(cache, tokens, prompt=False):
    """Read tokens as a model does whose state is the sum of what it has read and its number."""
    state = cache.state
    ids, end, pieces = state.read(cache.length, torch.tensor(tokens)), cache.length + len(tokens), []
    while state.position < end:
        stop = state.stop(end) if prompt else end
        count = stop - state.position
        now = state.begin()
        before = now.get("sum", torch.zeros(2, dtype=torch.int64))
        now["sum"] = before.add_(torch.tensor([int(ids[:count].sum()), count]))  # in place, as kernels do
        state.end(count, now)
        if prompt:
            state.settle()
        cache.advance(max(0, stop - cache.length))
        pieces.append(count)
        ids = ids[count:]
    assert now["sum"].tolist()[1] == cache.length
    return now["sum"][0].item(), pieces


def test_a_rejected_draft_is_undone_and_what_was_accepted_is_read_once_more():
    cache = cache_of()
    read(cache, range(10), prompt=True)
    assert read(cache, [100, 200, 300]) == (645, [3])
    cache.keep(10, [0])
    assert (cache.length, cache.state.position) == (11, 10)
    assert read(cache, [7]) == (152, [2])
    cache.keep(12, [])
    assert cache.state.position == 12
    assert read(cache, [1]) == (153, [1])


def test_a_rollback_before_the_rounds_start_goes_back_to_what_was_kept_earlier():
    cache = cache_of()
    assert read(cache, range(40), prompt=True) == (780, [16, 16, 8])
    cache.rollback(20)
    assert cache.state.position == 16
    assert read(cache, [5]) == (195, [5])
    cache.rollback(0)
    assert read(cache, [5]) == (5, [1])


def test_a_fork_goes_on_from_the_newest_state_and_marks_where_it_parted():
    first = cache_of()
    read(first, range(40), prompt=True)
    assert [first.reusable(n) for n in (40, 39, 20, 15)] == [40, 32, 16, 0]
    second = first.fork(16, 1000)
    second.state.mark(20)
    assert read(second, range(16, 30), prompt=True) == (sum(range(30)), [4, 10])
    assert second.reusable(25) == 20 and first.reusable(25) == 16
    assert read(first, [1])[0] == 781  # what was shared is unchanged
    whole = first.fork(18, 1000)  # its state lags behind
    assert (whole.length, whole.state.position) == (18, 16)
    assert read(whole, [1]) == (sum(range(18)) + 1, [3])


def test_states_count_as_bytes_once():
    first = cache_of()
    read(first, range(32), prompt=True)
    held = first.nbytes
    assert held == distinct_bytes([first]) > 0
    assert distinct_bytes([first, first.fork(16, 100)]) == held


def test_rows_are_not_moved_together():
    cache = cache_of()
    read(cache, range(10), prompt=True)
    read(cache, [1, 2, 3])
    with pytest.raises(CacheError, match="cannot be moved"):
        cache.keep(10, [0, 2])


def test_states_take_no_more_memory_than_keys_and_values():
    assert spacing(1000, 128) == LEAST_EVERY
    assert spacing(128 * 1000, 128) == 1024
    assert spacing(10**9, 128) == spacing(10**6, 0) == MOST_EVERY
