import os
import sqlite3
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest

from rapid_integrations.compression import EmbeddingCache

WRITE = """
import sys
from pathlib import Path
import numpy as np
from rapid_integrations.compression import EmbeddingCache
cache = EmbeddingCache(Path(sys.argv[1]))
own = int(sys.argv[2])
for i in range(20):
    cache.put_many([cache.key("f", f"{own} {i}"), cache.key("f", f"shared {i}")], np.full((2, 3), i, np.float32))
"""


def keys_of(*texts):
    return [EmbeddingCache.key("embedder", text) for text in texts]


def vectors(*values):
    return np.array([[value, value + 1] for value in values], dtype=np.float32)


def test_what_was_put_comes_back_in_order_with_none_for_the_rest():
    cache = EmbeddingCache()
    a, b, c = keys_of("a", "b", "c")
    cache.put_many([a, c], vectors(1, 3))
    first, missing, last, again = cache.get_many([c, b, a, c])
    assert first.tolist() == [3, 4] and last.tolist() == [1, 2] and again.tolist() == [3, 4]
    assert missing is None
    assert first.dtype == np.float32


def test_keys_tell_embedders_and_texts_apart():
    pairs = [("f", "a"), ("f", "b"), ("g", "a"), ("fa", ""), ("f", "\ud800")]
    assert len({EmbeddingCache.key(*pair) for pair in pairs}) == len(pairs)


def test_neither_caller_nor_source_can_change_what_is_kept():
    cache = EmbeddingCache()
    (key,) = keys_of("a")
    source = vectors(1)
    cache.put_many([key], source)
    source[:] = 9
    (found,) = cache.get_many([key])
    assert found.tolist() == [1, 2]
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 5


def test_memory_drops_the_least_recently_used():
    cache = EmbeddingCache(max_entries=2)
    a, b, c = keys_of("a", "b", "c")
    cache.put_many([a, b], vectors(1, 2))
    cache.get_many([a])
    cache.put_many([c], vectors(3))
    assert [found is not None for found in cache.get_many([a, b, c])] == [True, False, True]


def test_the_file_outlives_the_object_and_serves_two(tmp_path):
    path = tmp_path / "below" / "cache.sqlite"
    one, two = EmbeddingCache(path), EmbeddingCache(path)
    a, b = keys_of("a", "b")
    one.put_many([a], vectors(1))
    two.put_many([b], vectors(2))
    for cache in (one, two, EmbeddingCache(path)):
        assert [found.tolist() for found in cache.get_many([a, b])] == [[1, 2], [2, 3]]


def test_many_keys_at_once(tmp_path):
    keys = keys_of(*map(str, range(1200)))
    EmbeddingCache(tmp_path / "c").put_many(keys, vectors(*range(1200)))
    found = EmbeddingCache(tmp_path / "c").get_many(keys)
    assert [vector[0] for vector in found] == list(range(1200))


def test_the_file_drops_the_oldest(tmp_path):
    a, b, c = keys_of("a", "b", "c")
    cache = EmbeddingCache(tmp_path / "c", max_entries=2)
    for key in (a, b, c):
        cache.put_many([key], vectors(1))
    assert [v is not None for v in EmbeddingCache(tmp_path / "c").get_many([a, b, c])] == [False, True, True]


@pytest.mark.process
def test_processes_share_the_file(tmp_path):
    path = tmp_path / "cache.sqlite"
    processes = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", WRITE, str(path), str(own)], stderr=subprocess.PIPE)
        for own in range(3)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors.decode()
    cache = EmbeddingCache(path)
    for name in ("0", "1", "2", "shared"):
        found = cache.get_many([cache.key("f", f"{name} {i}") for i in range(20)])
        assert [vector.tolist() for vector in found] == [[i] * 3 for i in range(20)]


def test_threads_share_the_object(tmp_path):
    cache = EmbeddingCache(tmp_path / "c", max_entries=50)
    failures = []

    def work(own):
        try:
            for i in range(8):
                (key,) = keys_of(f"{own} {i}")
                cache.put_many([key], vectors(i))
                (found,) = cache.get_many([key])
                assert found.tolist() == [i, i + 1]
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(own,)) for own in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def check_goes_on_in_memory(path):
    cache = EmbeddingCache(path)
    a, b = keys_of("a", "b")
    with pytest.warns(RuntimeWarning, match="in memory only") as warned:
        cache.put_many([a], vectors(1))
    assert len(warned) == 1
    assert str(path) in str(warned[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # only once
        cache.put_many([b], vectors(2))
        assert [found.tolist() for found in cache.get_many([a, b])] == [[1, 2], [2, 3]]


def test_a_damaged_file_is_left_alone(tmp_path):
    path = tmp_path / "cache.sqlite"
    path.write_bytes(b"not a database at all, but long enough to look at" * 200)
    before = path.read_bytes()
    check_goes_on_in_memory(path)
    assert path.read_bytes() == before


def test_reading_from_a_damaged_file_warns_too(tmp_path):
    path = tmp_path / "cache.sqlite"
    EmbeddingCache(path).put_many(keys_of(*map(str, range(500))), vectors(*range(500)))
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    cache = EmbeddingCache(path)
    with pytest.warns(RuntimeWarning, match="in memory only"):
        assert cache.get_many(keys_of("1")) == [None]


def test_another_programs_database_is_left_alone(tmp_path):
    path = tmp_path / "other.sqlite"
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE embeddings (mine TEXT)")
    database.close()
    check_goes_on_in_memory(path)


def test_a_file_of_a_later_release_is_left_alone(tmp_path):
    path = tmp_path / "cache.sqlite"
    EmbeddingCache(path).put_many(keys_of("a"), vectors(1))
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version=2")
    database.close()
    check_goes_on_in_memory(path)


def test_a_path_that_cannot_be_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    check_goes_on_in_memory(tmp_path / "file" / "cache.sqlite")
    check_goes_on_in_memory(tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    try:
        check_goes_on_in_memory(tmp_path / "cache.sqlite")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("change", ["dimension = 3", "vector = x'0000000000000000'", "crc = 0", "vector = x'00'"])
def test_a_damaged_vector_counts_as_absent(tmp_path, change):
    path = tmp_path / "cache.sqlite"
    keys = keys_of("a", "b")
    EmbeddingCache(path).put_many(keys, vectors(1, 2))
    database = sqlite3.connect(path)
    with database:
        database.execute(f"UPDATE embeddings SET {change} WHERE key = ?", (keys[0],))
    database.close()
    damaged, sound = EmbeddingCache(path).get_many(keys)
    assert damaged is None
    assert sound.tolist() == [2, 3]
