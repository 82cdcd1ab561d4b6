"""The prefix cache against plain lists of tokens: what is found, what is kept, and who owns it."""

import gc
import threading
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rapid_integrations.cache import CAPACITY_BUCKET, KVCache, distinct_bytes
from rapid_integrations.cache.memory_budget import available_memory, memory_budget
from rapid_integrations.cache.prefix_cache import MIN_REUSED_TOKENS, MOST_ANSWERS, PrefixCache, common_prefix
from rapid_integrations.errors import ConfigurationError
from tests.toys.budget import examples

MODEL, OTHER = object(), object()
BUCKET_BYTES = CAPACITY_BUCKET * 2 * 8  # one layer, one head of width one, keys and values, int64
PLENTY = 100 * BUCKET_BYTES


def holding(token_ids, capacity=None):
    """A cache whose rows are the tokens themselves."""
    cache = KVCache(1, capacity or len(token_ids))
    rows = torch.tensor(token_ids).view(1, 1, -1, 1)
    cache.write(0, rows, -rows)
    cache.advance(len(token_ids))
    return cache


def held(cache):
    keys, values = cache.layer(0)
    assert torch.equal(keys, -values)
    return keys.flatten().tolist()


def text(seed, length):
    return torch.randint(0, 50, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def kept(*texts, max_bytes=PLENTY, role="target"):
    prefixes = PrefixCache(max_bytes)
    for token_ids in texts:
        prefixes.put(MODEL, role, token_ids, holding(token_ids))
    return prefixes


DOCUMENT = text(1, 400)
SYSTEM = text(2, 60)


@given(st.lists(st.integers(0, 2)), st.lists(st.integers(0, 2)))
def test_common_prefix(first, second):
    expected = next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), None)
    found = common_prefix(np.array(first, dtype=np.int64), np.array(second, dtype=np.int64))
    assert found == (min(len(first), len(second)) if expected is None else expected)


# --- what is found ----------------------------------------------------------------------------------------------


def test_every_question_finds_the_document_while_another_one_uses_it():
    prefixes = kept([*DOCUMENT, 7, 7, 7])
    caches = [prefixes.take(MODEL, [*DOCUMENT, 8, 8], 500) for _ in range(3)]
    assert all(held(cache) == DOCUMENT for cache in caches)
    assert len(prefixes) == 1 and prefixes.nbytes == BUCKET_BYTES
    assert all(cache.nbytes < BUCKET_BYTES / 3 for cache in caches)
    assert distinct_bytes([*prefixes.caches(), *caches]) == BUCKET_BYTES + sum(cache.nbytes for cache in caches)


def test_the_last_token_is_never_taken_as_read():
    assert kept(DOCUMENT).take(MODEL, DOCUMENT, 500).length == len(DOCUMENT) - 1
    assert kept([*DOCUMENT, 1]).take(MODEL, DOCUMENT, 500).length == len(DOCUMENT) - 1


def test_a_longer_prompt_gets_the_room_that_it_needs():
    cache = kept(DOCUMENT).take(MODEL, [*DOCUMENT, *text(3, 2000)], 2600)
    assert cache.capacity >= 2600 and held(cache) == DOCUMENT


def test_a_short_common_beginning_is_copied():
    prefixes = kept([*SYSTEM, *DOCUMENT])
    cache = prefixes.take(MODEL, [*SYSTEM, *text(4, 100)], 300)
    assert held(cache) == SYSTEM and not cache.shared
    cache.rollback(0)
    cache.write(0, torch.zeros(1, 1, 60, 1, dtype=torch.long), torch.zeros(1, 1, 60, 1, dtype=torch.long))
    assert held(prefixes.take(MODEL, [*SYSTEM, *DOCUMENT, 9], 500)) == [*SYSTEM, *DOCUMENT]


def test_a_few_common_tokens_are_nothing():
    prefixes = kept(DOCUMENT)
    assert prefixes.take(MODEL, [*DOCUMENT[: MIN_REUSED_TOKENS - 1], 99, 99], 500) is None
    assert prefixes.take(MODEL, [99, *DOCUMENT], 500) is None
    assert prefixes.take(MODEL, [], 500) is None
    assert len(prefixes) == 1


def test_models_are_kept_apart():
    prefixes = kept(DOCUMENT)
    assert prefixes.take(OTHER, [*DOCUMENT, 1], 500) is None
    assert prefixes.shared(OTHER, [*DOCUMENT, 1]) == 0
    assert prefixes.shared(MODEL, [*DOCUMENT, 1]) == len(DOCUMENT)


def test_the_longest_wins():
    chat = [*DOCUMENT, *text(5, 100)]
    prefixes = kept(chat, [*DOCUMENT, *text(6, 100)])
    assert held(prefixes.take(MODEL, [*chat, 1, 2], 600)) == chat


def test_no_memory_for_a_tail_is_told_and_the_entry_stays(monkeypatch):
    def fail(self, like, layer):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    prefixes = kept(DOCUMENT)
    with monkeypatch.context() as patch:
        patch.setattr(KVCache, "_allocate", fail)
        with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
            prefixes.take(MODEL, [*DOCUMENT, *DOCUMENT], 5000)
    assert held(prefixes.take(MODEL, [*DOCUMENT, *DOCUMENT], 5000)) == DOCUMENT


# --- what is kept -----------------------------------------------------------------------------------------------


def test_the_least_recently_used_goes_first_and_bytes_count():
    documents = [text(seed, 100) for seed in range(10, 14)]
    prefixes = kept(*documents[:3], max_bytes=3 * BUCKET_BYTES)
    cache = prefixes.take(MODEL, [*documents[0], 1], 200)
    prefixes.put(MODEL, "target", documents[0], cache)  # used: now the second is the oldest
    prefixes.put(MODEL, "target", documents[3], holding(documents[3]))
    assert [prefixes.shared(MODEL, [*d, 1]) for d in documents] == [100, 0, 100, 100]
    assert prefixes.nbytes == 3 * BUCKET_BYTES
    large = text(20, 1000)  # two buckets
    prefixes.put(MODEL, "target", large, holding(large))
    assert [prefixes.shared(MODEL, [*d, 1]) for d in documents] == [0, 0, 0, 100]
    assert prefixes.nbytes == 3 * BUCKET_BYTES


def test_what_is_larger_than_the_budget_pushes_nothing_out():
    prefixes = kept(text(1, 100), max_bytes=BUCKET_BYTES)
    large = text(2, 1000)
    prefixes.put(MODEL, "target", large, holding(large))
    assert prefixes.shared(MODEL, large) == 0 and len(prefixes) == 1


def test_drafters_do_not_push_documents_out():
    documents = [text(seed, 100) for seed in range(3)]
    prefixes = kept(*documents, max_bytes=4 * BUCKET_BYTES)
    for seed in range(30, 40):
        prefixes.put(MODEL, "drafter", text(seed, 100), holding(text(seed, 100)))
    assert all(prefixes.shared(MODEL, [*d, 1]) == 100 for d in documents)
    assert prefixes.shared(MODEL, [*text(39, 100), 1]) == 100 and len(prefixes) == 4


def test_drafters_may_fill_what_nobody_else_needs():
    prefixes = kept(*(text(seed, 100) for seed in range(4)), max_bytes=4 * BUCKET_BYTES, role="drafter")
    assert len(prefixes) == 4


def test_a_text_that_another_continues_is_not_kept_twice():
    longer = [*DOCUMENT, *text(3, 50)]
    for texts in ((DOCUMENT, longer), (longer, DOCUMENT), (longer, longer)):
        prefixes = kept(*texts)
        assert len(prefixes) == 1 and prefixes.shared(MODEL, [*longer, 1]) == len(longer)


def answered(prefixes, document, seed):
    """Let a request about a document end, whose cache refers to an entry's rows."""
    cache = prefixes.take(MODEL, [*document, 99], len(document) + 100)
    more = torch.tensor(answer := text(seed, 90)).view(1, 1, -1, 1)
    cache.write(0, more, -more)
    cache.advance(90)
    prefixes.put(MODEL, "target", [*document, *answer], cache)
    return cache


def test_a_document_counts_once_for_the_budget():
    document = text(7, 1000)  # two buckets; an answer has 192 rows of its own, three tiles
    prefixes = kept([*document, *text(8, 20)], text(9, 100), max_bytes=4 * BUCKET_BYTES)
    answers = [answered(prefixes, document, 50 + seed) for seed in range(2)]
    assert all(cache.nbytes == 192 * BUCKET_BYTES // CAPACITY_BUCKET for cache in answers)
    assert prefixes.nbytes == 3 * BUCKET_BYTES + sum(cache.nbytes for cache in answers) and len(prefixes) == 4
    answers.append(answered(prefixes, document, 60))  # the other document, which is the oldest one, makes room
    assert prefixes.nbytes == 2 * BUCKET_BYTES + sum(cache.nbytes for cache in answers) and len(prefixes) == 4
    assert prefixes.shared(MODEL, [*text(9, 100), 1]) == 0


def test_an_evicted_entry_frees_only_what_is_its_own():
    document = text(7, 1000)
    prefixes = kept([*document, *text(8, 20)], max_bytes=3 * BUCKET_BYTES)
    first = prefixes.caches()[0]
    answers = [answered(prefixes, document, 50 + seed) for seed in range(2)]
    large = text(11, 500)
    prefixes.put(MODEL, "target", large, holding(large))
    # The first entry is the oldest one, but its buffers serve the answers; their tails have to go, too.
    assert len(prefixes) == 1 and prefixes.nbytes == BUCKET_BYTES
    assert distinct_bytes(answers) == 2 * BUCKET_BYTES + sum(cache.nbytes for cache in answers)
    assert held(first) == [*document, *text(8, 20)] and held(answers[0])[:1000] == document


def test_the_newest_answers_about_a_document_stay():
    document = text(7, 400)
    prefixes = kept([*document, *text(8, 20)], text(9, 100))
    for seed in range(12):
        answered(prefixes, document, 50 + seed)
    kept_answers = [seed for seed in range(12) if prefixes.shared(MODEL, [*document, *text(50 + seed, 90), 1]) == 490]
    assert kept_answers == list(range(12 - MOST_ANSWERS, 12))
    assert len(prefixes) == MOST_ANSWERS + 1 and prefixes.shared(MODEL, [*text(9, 100), 1]) == 100


def test_zero_keeps_nothing_and_closing_frees_everything():
    assert len(kept(DOCUMENT, max_bytes=0)) == 0
    prefixes = kept(DOCUMENT, text(3, 100))
    prefixes.clear()
    assert len(prefixes) == 0
    prefixes.put(MODEL, "target", DOCUMENT, holding(DOCUMENT))
    prefixes.close()
    prefixes.put(MODEL, "target", DOCUMENT, holding(DOCUMENT))  # a stream that ends after the engine was closed
    assert len(prefixes) == 0


def test_a_finaliser_inside_the_lock_does_not_hang(monkeypatch):
    """Python may collect an abandoned stream anywhere, even while its own thread holds the lock."""
    prefixes = kept(DOCUMENT)
    longest = PrefixCache._longest

    def collected_meanwhile(self, *args):
        self.put(MODEL, "target", text(9, 100), holding(text(9, 100)))
        return longest(self, *args)

    monkeypatch.setattr(PrefixCache, "_longest", collected_meanwhile)
    done = threading.Thread(target=prefixes.take, args=(MODEL, DOCUMENT, 500), daemon=True)
    done.start()
    done.join(10)
    assert not done.is_alive()
    monkeypatch.undo()
    gc.collect()
    assert prefixes.shared(MODEL, [*text(9, 100), 1]) == 100


@pytest.mark.parametrize("way", ["nbytes", "clear", "close"])
def test_what_is_given_back_while_the_lock_is_held_waits_for_nobody(way, monkeypatch):
    """It would count for no budget and, once the engine is closed, never be freed."""
    prefixes, caches = kept(DOCUMENT), []
    admit = PrefixCache._admit_returned

    def admitted_and_then_one_more(self):
        admit(self)
        if not caches:
            caches.append(weakref.ref(cache := holding(text(9, 100))))
            self.put(MODEL, "target", text(9, 100), cache)

    monkeypatch.setattr(PrefixCache, "_admit_returned", admitted_and_then_one_more)
    PrefixCache.nbytes.fget(prefixes) if way == "nbytes" else getattr(prefixes, way)()
    assert not prefixes._returned
    assert (caches[0]() is None) == (way == "close")


@settings(max_examples=examples(60))
@given(
    steps=st.lists(
        st.tuples(
            st.lists(st.integers(0, 3), min_size=1, max_size=5), st.integers(0, 1), st.integers(0, 120), st.booleans()
        ),
        max_size=25,
    ),
    buckets=st.integers(0, 6),
)
def test_any_history_gives_right_rows_within_the_budget(steps, buckets):
    """Prompts are made of a few parts, so that they share beginnings of all lengths."""
    parts = [text(part, 90 + 120 * part) for part in range(4)]
    prefixes = PrefixCache(buckets * BUCKET_BYTES)
    models = MODEL, OTHER
    in_flight = []
    for chosen, model, output, ends in steps:
        prompt = [token for part in chosen for token in parts[part]]
        cache = prefixes.take(models[model], prompt, len(prompt) + output)
        if cache is None:
            cache = KVCache(1, len(prompt) + output)
        else:
            assert held(cache) == prompt[: cache.length] and cache.length < len(prompt)
            assert cache.capacity >= len(prompt) + output
        rest = [*prompt, *text(output, output)][cache.length :]
        rows = torch.tensor(rest).view(1, 1, -1, 1)
        cache.write(0, rows, -rows)
        cache.advance(len(rest))
        in_flight.append((model, cache))
        if ends:
            for owner, ended in in_flight:
                prefixes.put(models[owner], "target", held(ended), ended)
            in_flight = []
        assert prefixes.nbytes <= prefixes.max_bytes
    for entry in prefixes._entries:
        assert held(entry.cache) == entry.token_ids.tolist()
        assert all(entry.cache is not cache for _, cache in in_flight)


# --- the budget -------------------------------------------------------------------------------------------------


def test_the_budget():
    cpu = torch.device("cpu")
    assert memory_budget(12345, [cpu]) == 12345 and memory_budget(0, [cpu]) == 0
    available = available_memory(cpu)
    assert 0.1 * available < memory_budget("auto", [cpu, cpu]) < 0.5 * available
    for wrong in (-1, 1.5, "much", None, True):
        with pytest.raises(ConfigurationError, match=r"prefix_cache_bytes=.*'auto' for a quarter"):
            memory_budget(wrong, [cpu])


def test_a_containers_limit_counts(tmp_path, monkeypatch):
    monkeypatch.setattr("rapid_integrations.cache.memory_budget._CGROUP", tmp_path)
    (tmp_path / "memory.current").write_text("400\n")
    (tmp_path / "memory.max").write_text("1000\n")
    assert available_memory(torch.device("cpu")) == 600
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory(torch.device("cpu")) > 10**6
