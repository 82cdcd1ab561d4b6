"""Which rows of windowed layers stay: those that a query, a rollback or another text may see, and few others."""

import random

import pytest
import torch

from rapid_integrations.cache import KVCache, windows
from rapid_integrations.cache.windows import kept, most_held, reusable, spacing, without
from rapid_integrations.errors import CacheError
from tests.toys.budget import examples
from tests.toys.errors import coded
from tests.toys.freed_rows import BRANCHES, SPACING, rows_freed_early
from tests.toys.token_cache import text

WINDOW = 10
PIECE = 40


def covered(ranges):
    return {position for begin, end in ranges for position in range(max(0, begin), end)}


def test_ranges_are_taken_out_of_ranges():
    for seed in range(200):
        random.seed(seed)
        taken = [(a, a + random.randrange(8)) for a in (random.randrange(-5, 30) for _ in range(random.randrange(5)))]
        left = without((3, 25), taken)
        assert left == sorted(left) and all(begin < end for begin, end in left)
        assert covered(left) == set(range(3, 25)) - covered(taken)


def test_the_longest_beginning_with_all_rows_is_reused():
    for seed in range(300):
        random.seed(seed)
        begins = sorted(random.sample(range(60), 2 * random.randrange(4)))
        freed = list(zip(begins[::2], begins[1::2], strict=True))
        length = random.randrange(70)
        whole = [at for at in range(length + 1) if not covered([(at - 7, at)]) & covered(freed)]
        assert reusable(length, 7, freed) == max(whole)


def test_a_window_costs_an_eighth_at_most_beside_what_is_at_the_ends():
    for window in (128, 1024, 4096):
        assert spacing(window) >= 8 * window
        stays = covered(kept(window, 100_000, 99_000, [])) & set(range(100_000))
        assert len(stays) <= most_held(100_000, window) <= 2 * (window + 512) + 1280 + 100_000 // 8
        assert most_held(300, window) == 300


def append(cache, token_ids, of_prompt=False):
    rows = torch.tensor(token_ids, dtype=torch.float32).view(1, 1, -1, 1).expand(1, 2, len(token_ids), 4)
    for layer in range(cache.layers):
        cache.write(layer, rows + layer, -rows - layer)
    cache.advance(len(token_ids), of_prompt=of_prompt)


def assert_what_is_seen_is_right(cache, tokens, windows_of):
    """Of each layer, the rows that the next token sees."""
    assert cache.length == len(tokens)
    wanted = torch.tensor(tokens, dtype=torch.float32)
    for layer, window in enumerate(windows_of):
        first = 0 if window is None else max(0, len(tokens) - window)
        keys, values = cache.layer(layer)
        assert torch.equal(keys[0, 0, first:, 0], wanted[first:] + layer)
        assert torch.equal(values[0, 1, first:, 3], -wanted[first:] - layer)


@pytest.mark.parametrize("seed", range(examples(100)))
def test_whatever_happens_to_texts_that_share_beginnings(seed):
    """Texts grow, are rolled back, part from each other and go on, in any order: what they see is right."""
    random.seed(seed)
    windows_of = (None, WINDOW, 4)
    parted = 0
    with rows_freed_early():
        texts = [(KVCache(3, 4096, windows=windows_of), text(seed, 20))]
        append(*texts[0])
        longest = [20]
        for step in range(80):
            number = random.randrange(len(texts))
            cache, tokens = texts[number]
            what = random.random()
            if what < 0.5:
                new = text(seed * 1000 + step, random.randrange(1, PIECE))
                if cache.length + len(new) <= cache.capacity:
                    append(cache, new, random.random() < 0.5)
                    tokens += new
                    longest[number] = max(longest[number], len(tokens))
            elif what < 0.75:
                to = max(0, len(tokens) - random.randrange(BRANCHES))
                try:
                    cache.rollback(to)
                    del tokens[to:]
                except CacheError as error:
                    far_back = to <= longest[number] - BRANCHES
                    assert error.code == "cache.shared" or (error.code == "cache.window" and far_back)
            elif len(texts) < 6:
                wanted = random.randrange(len(tokens) + 1)
                length = cache.reusable(wanted)
                assert length == wanted or wanted - length <= SPACING + WINDOW or length >= cache.length - BRANCHES
                other = cache.fork(length, length + 1000, tile=4)
                other.mark(wanted)
                texts.append((other, tokens[:length]))
                longest.append(length + BRANCHES)  # what came before may be gone
                parted += 1
            for each, wanted_tokens in texts:
                assert_what_is_seen_is_right(each, wanted_tokens, windows_of)
        assert parted == 5 and sum(bool(cache.freed) for cache, _ in texts) > 0


def test_questions_about_a_document_begin_at_its_end_and_others_where_rows_are_kept():
    with rows_freed_early():
        cache, tokens = KVCache(1, 1000, windows=(WINDOW,)), text(1, 300)
        append(cache, tokens, of_prompt=True)
        for token in text(2, 100):  # a long answer frees nothing before the prompt's end
            append(cache, [token])
        assert all(cache.reusable(at) == at for at in range(300 - BRANCHES, 301))
        assert all(cache.reusable(at) == at for at in range(400 - BRANCHES, 401))
        assert cache.reusable(350) == cache.reusable(320) == 320  # a multiple of the spacing
        assert cache.reusable(280) == 256 and cache.reusable(60) < WINDOW and cache.reusable(0) == 0
        with pytest.raises(CacheError, check=coded("cache.window")):
            cache.fork(280, 500)
        with pytest.raises(CacheError, check=coded("cache.window")):
            cache.rollback(280)
        cache.rollback(256)
        append(cache, [1, 2, 3])
        assert_what_is_seen_is_right(cache, [*tokens[:256], 1, 2, 3], (WINDOW,))


def test_memory_counts_the_rows_that_are_held():
    with rows_freed_early():
        cache = KVCache(2, 1000, windows=(None, WINDOW))
        row = 2 * 2 * 4 * 4  # keys and values, heads, width, bytes
        for at in range(0, 900, 50):
            append(cache, text(at, 50), of_prompt=True)
            held = cache.length - sum(end - begin for begin, end in cache.freed)
            assert cache.nbytes == row * (cache.capacity + held)
            assert held <= most_held(cache.length, WINDOW) and held <= BRANCHES + WINDOW + windows.STEP + 14 * WINDOW
        assert cache.bytes_per_token == 2 * row


def test_a_system_that_takes_nothing_back_keeps_every_row():
    with rows_freed_early(ever=False):
        cache = KVCache(1, 1000, windows=(WINDOW,))
        append(cache, text(1, 900))
        assert cache.freed == [] and cache.windows == () and cache.reusable(123) == 123
