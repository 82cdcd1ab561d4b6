"""States whose newest tokens are recorded: what is taken back, what is kept, and from where other texts go on."""

import pytest
import torch

from rapid_integrations.cache import KVCache, RecordedState, StateShape, distinct_bytes
from rapid_integrations.cache.recorded_state import MOST_RECORDED
from rapid_integrations.errors import CacheError

SHAPE = StateShape(layers=2, heads=1, key_dim=1, value_dim=1, channels=3, rates=2, taps=2)


def cache_of(every=16):
    return KVCache(0, 1000, state=RecordedState(SHAPE, every))


def read(cache, tokens, prompt=False):
    """Read tokens as a model does whose state is the sum of what it has read; return the sum behind them."""
    state = cache.state
    done = state.begin(cache.length, len(tokens), of_prompt=prompt)
    new = torch.tensor(tokens, dtype=torch.float32)[:, None].expand(-1, SHAPE.width)
    sums = []
    for layer in range(SHAPE.layers):
        rows = torch.cat([done.recorded[layer], new + layer])
        if done.rows is not None:
            assert torch.equal(done.rows[layer, : len(rows) - len(new)], done.recorded[layer])
            done.rows[layer, -len(new) :] = new + layer
        for stop, into in zip(done.stops, done.states, strict=True):
            into.matrices[layer] = done.before.matrices[layer] + rows[:stop].sum(dim=0)[0]
            into.inputs[layer] = torch.cat([done.before.inputs[layer], rows[:stop, : SHAPE.channels]])[-1:]
        sums.append(float(done.before.matrices[layer] + rows.sum(dim=0)[0]))
    state.end(done)
    cache.advance(len(tokens))
    assert sums[1] - sums[0] == cache.length  # each token is 1 more for the second layer
    return sums[0]


def test_a_rejected_draft_is_forgotten_and_what_was_accepted_is_added_later():
    cache = cache_of()
    assert read(cache, range(10), prompt=True) == 45
    assert read(cache, [100, 200, 300]) == 645
    cache.keep(10, [0])
    assert (cache.length, cache.state.position, cache.state.length) == (11, 10, 11)
    assert read(cache, [7]) == 152
    cache.keep(12, [])
    assert cache.state.position == 11
    assert read(cache, [1]) == 153


def test_what_is_read_token_by_token_is_taken_back_until_it_is_settled():
    cache = cache_of()
    read(cache, range(10), prompt=True)
    for token in (1, 2, 3, 4):
        read(cache, [token])
    assert cache.state.position == 10
    cache.rollback(11)
    assert read(cache, [5]) == 51
    cache.rollback(10)
    assert read(cache, [9]) == 54


def test_many_rows_that_move_within_their_memory_keep_their_numbers():
    cache, total = cache_of(), 45
    read(cache, range(10), prompt=True)
    for round_ in range(60):
        accepted = round_ % 4
        draft = [round_ + at for at in range(6)]
        assert read(cache, draft) == total + sum(draft)
        total += sum(draft[: accepted + 1])
        cache.keep(cache.length - 6, range(accepted + 1))
    assert cache.state.tensors[-1].shape[1] <= 64


def test_rows_that_were_recorded_in_inference_mode_move_outside_of_it():
    cache = cache_of()
    with torch.inference_mode():
        read(cache, range(10), prompt=True)
        read(cache, range(12))
        cache.keep(10, range(10))
        read(cache, [1, 2])
    done = cache.state.begin(cache.length, 5, of_prompt=False)  # whoever fills it in writes to its memory by address
    assert done.recorded[:, :, 0].tolist() == [[1, 2], [2, 3]] and done.rows.shape[1] == 7


@pytest.mark.parametrize("prompt", [True, False])
def test_states_of_a_prompt_are_kept_every_so_many_tokens_and_at_marks(prompt):
    cache = cache_of()
    cache.mark(20)
    assert read(cache, range(MOST_RECORDED + 2), prompt=prompt) == sum(range(MOST_RECORDED + 2))
    # more rows than any draft has are read for good, too
    assert [each.position for each in cache.state.states] == [
        16,
        20,
        *range(32, MOST_RECORDED + 1, 16),
        MOST_RECORDED + 2,
    ]
    assert [cache.reusable(n) for n in (15, 16, 19, 20, 31, 32)] == [0, 16, 16, 20, 20, 32]
    assert cache.state.states[1].tensors["matrices"][0].item() == sum(range(20))


def test_a_rollback_goes_to_a_state_that_was_kept_and_to_no_other():
    cache = cache_of()
    read(cache, range(40), prompt=True)
    with pytest.raises(CacheError, match=r"cannot roll back to 20 tokens: .* behind 16 and 40 tokens"):
        cache.rollback(20)
    cache = cache_of()
    read(cache, range(40), prompt=True)
    cache.rollback(32)
    assert cache.state.position == 32 and read(cache, [5]) == sum(range(32)) + 5
    cache.rollback(0)
    assert read(cache, [5]) == 5


def test_a_fork_goes_on_alone():
    first = cache_of()
    read(first, range(40), prompt=True)
    read(first, [100, 200])
    with pytest.raises(CacheError, match=r"cannot fork 39 tokens: .* behind 32 and 40 tokens"):
        first.fork(39, 100)
    forks = [first.fork(length, 100) for length in (32, 40, 41, 42)]
    whole = sum(range(40))
    assert [read(fork, [1]) for fork in forks] == [sum(range(32)) + 1, whole + 1, whole + 101, whole + 301]
    assert read(first, [3]) == whole + 303
    for fork in forks:
        fork.keep(fork.length, [])
        read(fork, [2])
    first.keep(first.length, [])
    assert read(first, [0]) == whole + 303 and read(first.fork(40 + 4, 100), [4]) == whole + 307


def test_memory_is_used_again_and_shared_states_count_once():
    cache = cache_of()
    read(cache, range(40), prompt=True)
    held = cache.nbytes
    for _ in range(100):
        read(cache, [1, 2])
        cache.keep(cache.length - 2, [0])
    # the states at 16 and 32 tokens, the present one, and one that the next takes the place of
    assert cache.nbytes <= held + 2 * SHAPE.nbytes + 4 * SHAPE.layers * 64 * SHAPE.width
    forks = [cache.fork(cache.length, 1000) for _ in range(5)]
    assert distinct_bytes([cache, *forks]) < cache.nbytes + 5 * 4 * SHAPE.layers * 64 * SHAPE.width


def test_a_pass_that_does_not_end_changes_nothing():
    cache = cache_of()
    read(cache, range(40), prompt=True)
    read(cache, [1])
    cache.keep(41, [])
    done = cache.state.begin(41, 2, of_prompt=False)
    for written in (done.states[0].matrices, done.states[0].inputs, done.rows[:, -2:]):
        written.fill_(77)
    cache.rollback(41)
    assert read(cache, [2]) == sum(range(40)) + 3


def test_tokens_that_the_state_has_not_read_are_an_error():
    cache = cache_of()
    read(cache, range(10), prompt=True)
    with pytest.raises(CacheError, match="has read 10 tokens, and the cache 12"):
        cache.state.begin(12, 1, of_prompt=False)
