"""Saved prefixes against everything that can happen to files, folders and processes."""

import errno
import os
import signal
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from rapid_integrations.cache import KVCache, RecordedState, StateShape, prefix_store
from rapid_integrations.cache.background_saver import WAITING, BackgroundSaver
from rapid_integrations.cache.prefix_store import MIN_GAIN_TOKENS, PrefixStore
from rapid_integrations.cache.saved_cache import WriteInterrupted, read_cache, write_cache
from rapid_integrations.errors import CacheError, ConfigurationError
from tests.toys.errors import coded
from tests.toys.freed_rows import rows_freed_early
from tests.toys.token_cache import LAYERS, append, held, holding, text

CPU = torch.device("cpu")
MODEL, OTHER = "a" * 64, "b" * 64
DOCUMENT = text(1, 600)


@pytest.fixture
def store(tmp_path):
    return PrefixStore(tmp_path / "prefixes")


def save(store, token_ids, model=MODEL):
    store.save(model, np.array(token_ids), holding(token_ids), lambda: True)


def load(store, token_ids, model=MODEL, more_than=0):
    cache = store.load(model, token_ids, len(token_ids) + 10, CPU, more_than)
    return None if cache is None else held(cache)


def files(store):
    return sorted(store.folder.glob("*.safetensors"))


# --- what is found ----------------------------------------------------------------------------------------------


def test_another_process_finds_the_document_read(store):
    assert load(store, DOCUMENT) is None  # no folder yet
    save(store, [*DOCUMENT, 1, 2])
    other = PrefixStore(store.folder)
    assert load(other, [*DOCUMENT, 3]) == DOCUMENT
    assert load(other, DOCUMENT) == DOCUMENT[:-1]
    assert load(other, [*DOCUMENT, 3], model=OTHER) is None
    assert (store.folder.stat().st_mode & 0o777, files(store)[0].stat().st_mode & 0o777) == (0o700, 0o600)
    assert [path.name for path in store.folder.iterdir()] == [files(store)[0].name]


def test_labels_may_hold_halves_of_characters(store):
    store.save(MODEL, np.array(DOCUMENT), holding(DOCUMENT), lambda: True, {"about": "\ud800 a \udfff"})
    assert load(PrefixStore(store.folder), [*DOCUMENT, 1]) == DOCUMENT
    assert read_cache(files(store)[0], 600)[0].labels == {"about": "\ufffd a \ufffd"}


def test_a_file_is_read_only_where_it_pays(store, monkeypatch):
    save(store, DOCUMENT)
    monkeypatch.setattr(prefix_store, "read_cache", None)
    assert load(store, [*DOCUMENT[:290], *text(2, 400)]) is None  # less than half of it is of use
    assert load(store, [*DOCUMENT, 1], more_than=600 - MIN_GAIN_TOKENS + 1) is None  # memory has as good
    assert load(store, text(2, 400)) is None
    assert load(store, []) is None


def test_what_the_folder_has_is_not_written_again(store):
    save(store, DOCUMENT)
    (path,) = files(store)
    os.utime(path, (1, 1))
    save(store, [*DOCUMENT, *text(3, 50)])
    assert files(store) == [path] and path.stat().st_mtime > 1  # but counts as used
    save(store, text(4, MIN_GAIN_TOKENS - 1))
    assert files(store) == [path]


def test_a_chat_that_goes_on_replaces_its_beginning(store):
    save(store, DOCUMENT)
    longer = [*DOCUMENT, *text(3, 400)]
    save(store, longer)
    assert len(files(store)) == 1
    assert load(store, [*longer, 1]) == longer


def test_bytes_on_disk_are_bounded_and_the_least_recently_used_go_first(tmp_path):
    store = PrefixStore(tmp_path)
    documents = [text(seed, 600) for seed in range(4)]
    save(store, documents[0])
    size = files(store)[0].stat().st_size
    store.max_bytes = int(3.5 * size)
    for document in documents[1:3]:
        save(store, document)
    for used, path in enumerate(sorted(files(store), key=lambda path: path.stat().st_mtime_ns)):
        os.utime(path, (used + 1, used + 1))
    assert load(store, [*documents[0], 1]) == documents[0]  # used: now the second is the oldest
    save(store, documents[3])
    assert [load(store, [*d, 1]) is not None for d in documents] == [True, False, True, True]
    assert sum(path.stat().st_size for path in files(store)) <= store.max_bytes
    store.max_bytes = size // 2
    with pytest.warns(RuntimeWarning, match="its limit is"):
        save(store, text(9, 600))
    assert len(files(store)) == 3  # nothing was removed for what can never fit


def test_settings_are_checked(tmp_path):
    with pytest.raises(ConfigurationError, match="prefix_cache_dir=''"):
        PrefixStore("")
    for wrong in (-1, 1.5, "much", True):
        with pytest.raises(ConfigurationError, match="prefix_cache_dir_bytes="):
            PrefixStore(tmp_path, wrong)


# --- files and folders that are wrong ---------------------------------------------------------------------------


def truncate(content):
    return content[: len(content) * 2 // 3]


def truncate_the_header(content):
    return content[:40]


def flip_a_row(content):
    return content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]


def flip_a_token(content):
    """Of the first tokens: the file then claims another text."""
    at = 8 + int.from_bytes(content[:8], "little")
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def claim_another_model(content):
    return content.replace(MODEL.encode(), OTHER.encode(), 1)


def claim_more_rows(content):
    return content.replace(b'"rows":"000000000600"', b'"rows":"000000000500"', 1)


def claim_another_version(content):
    return content.replace(b"KV cache 2", b"KV cache 9", 1)


def something_else(content):
    return b"not at all"


def nothing(content):
    return b""


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        truncate_the_header,
        flip_a_row,
        claim_another_model,
        claim_more_rows,
        claim_another_version,
        something_else,
        nothing,
    ],
)
def test_a_damaged_or_foreign_file_is_ignored_with_one_warning_and_replaced_by_the_next_save(store, damage):
    save(store, DOCUMENT)
    (path,) = files(store)
    path.write_bytes(damage(path.read_bytes()))
    fresh = PrefixStore(store.folder)
    with pytest.warns(RuntimeWarning, match=f"A saved prefix is ignored: .*{path.name}"):
        assert load(fresh, [*DOCUMENT, 1]) is None
    assert load(fresh, [*DOCUMENT, 1]) is None  # no second warning: it would be an error here
    save(fresh, DOCUMENT)
    assert load(fresh, [*DOCUMENT, 1]) == DOCUMENT


def test_a_flipped_token_is_found_out_where_the_claimed_text_is_asked_for(store):
    save(store, DOCUMENT)
    (path,) = files(store)
    path.write_bytes(flip_a_token(path.read_bytes()))
    assert load(PrefixStore(store.folder), [*DOCUMENT, 1]) is None  # another text: no reason to look closer
    with pytest.warns(RuntimeWarning, match="does not match its digest"):
        assert load(PrefixStore(store.folder), [DOCUMENT[0] ^ 1, *DOCUMENT[1:], 1]) is None


def a_folder(path):
    path.mkdir()


def a_pipe(path):
    os.mkfifo(path)


def a_link_to_itself(path):
    path.symlink_to(path.name)


def a_link_to_nowhere(path):
    path.symlink_to("nowhere")


@pytest.mark.parametrize("make", [a_folder, a_pipe, a_link_to_itself, a_link_to_nowhere])
def test_what_is_no_file_stops_nothing(store, make):
    """Nothing waits for a pipe, and the other files are still read, written and removed."""
    save(store, DOCUMENT)
    (path,) = files(store)
    odd = path.with_name(path.name.replace(path.stem[-4:], "0000"))
    make(odd)
    os.utime(path, (1, 1))
    other = text(7, 600)
    store.max_bytes = int(1.5 * path.stat().st_size)
    assert load(PrefixStore(store.folder), [*DOCUMENT, 1]) == DOCUMENT
    save(store, other)
    assert load(PrefixStore(store.folder), [*other, 1]) == other
    assert not path.exists() and os.path.lexists(odd)


def test_a_file_that_cannot_be_removed_stops_nothing(store, monkeypatch):
    documents = [text(seed, 600) for seed in range(3)]
    for at, document in enumerate(documents[:2]):
        save(store, document)
        for path in files(store):
            os.utime(path, (at + 1, at + 1)) if path.stat().st_mtime > 2 else None
    kept = min(files(store), key=lambda path: path.stat().st_mtime)
    unlink = Path.unlink

    def refuse(path, **options):
        if path == kept:
            raise PermissionError(errno.EACCES, "it is somebody else's")
        unlink(path, **options)

    monkeypatch.setattr(Path, "unlink", refuse)
    store.max_bytes = int(2.5 * kept.stat().st_size)
    save(store, documents[2])
    assert [load(store, [*each, 1]) is not None for each in documents] == [True, False, True]
    store.max_bytes = int(1.5 * kept.stat().st_size)
    save(store, text(8, 600))
    assert kept.exists() and sum(path.stat().st_size for path in files(store)) <= store.max_bytes


def test_files_that_are_not_ours_are_left_alone(store):
    save(store, DOCUMENT)
    for name in ("model.safetensors", "v0-aaaaaaaaaaaaaaaa-1.safetensors", "notes.txt"):
        (store.folder / name).write_text("mine")
    store.max_bytes = files(store)[-1].stat().st_size + 10_000
    assert load(store, [*DOCUMENT, 1]) == DOCUMENT
    save(store, text(3, 600))
    assert len(list(store.folder.iterdir())) == 4


def test_a_folder_that_cannot_be_used_is_no_error(tmp_path):
    (tmp_path / "file").write_text("")
    store = PrefixStore(tmp_path / "file" / "prefixes")
    with pytest.warns(RuntimeWarning, match="cannot be read"):
        assert load(store, DOCUMENT) is None
    with pytest.warns(RuntimeWarning, match="cannot be written"):
        save(store, DOCUMENT)
    save(store, DOCUMENT)
    assert load(store, DOCUMENT) is None


def test_a_full_disk_ends_the_saving_but_not_the_reading(store, monkeypatch):
    save(store, DOCUMENT)

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(RuntimeWarning, match="No space left.*Make room"):
        save(store, text(2, 600))
    save(store, text(3, 600))
    assert len(list(store.folder.iterdir())) == 1 and load(store, [*DOCUMENT, 1]) == DOCUMENT


def test_a_file_that_goes_between_index_and_load_is_no_error(store, monkeypatch):
    for module_reads in ("read_cache", "read_prefix"):
        save(store, DOCUMENT)
        read = getattr(prefix_store, module_reads)

        def evicted(path, *args, read=read):
            path.unlink()
            return read(path, *args)

        monkeypatch.setattr(prefix_store, module_reads, evicted)
        assert load(PrefixStore(store.folder), [*DOCUMENT, 1]) is None
        monkeypatch.undo()


def test_two_savers_of_one_folder(tmp_path):
    """Each evicts what the other writes."""
    stores = [PrefixStore(tmp_path), PrefixStore(tmp_path)]
    save(stores[0], DOCUMENT)
    for store in stores:
        store.max_bytes = int(2.5 * files(store)[0].stat().st_size)

    def work(number):
        for round_ in range(10):
            document = text(10 * number + round_ % 3, 600)
            save(stores[number], document)
            found = load(stores[number], [*document, 1])
            assert found is None or found == document

    failed = []

    def guarded(number):
        try:
            work(number)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed and 1 <= len(files(stores[0])) <= 4


# --- while it is written ----------------------------------------------------------------------------------------


def test_a_cache_whose_forks_are_used_while_it_is_written_gives_all_of_it(tmp_path):
    cache, forks = holding(DOCUMENT), []
    cache.freeze()

    def meanwhile():
        if not forks:
            forks.append(cache.fork(400, 5000))
            append(forks[0], text(5, 2000))
        return True

    write_cache(tmp_path / "f", cache, np.array(DOCUMENT), MODEL, meanwhile)
    saved, loaded = read_cache(tmp_path / "f", 600)
    assert held(loaded) == saved.token_ids.tolist() == DOCUMENT
    with pytest.raises(CacheError, check=coded("cache.short")):
        read_cache(tmp_path / "f", 600, 601)


def test_a_fork_is_written_like_a_cache_of_its_own(tmp_path):
    whole = [*DOCUMENT[:500], *text(5, 100)]
    fork = holding(DOCUMENT).fork(500, 700)
    append(fork, whole[500:])
    assert len(fork.shared) == 1
    for name, cache in (("fork", fork), ("own", holding(whole))):
        write_cache(tmp_path / name, cache, np.array(whole), MODEL)
    assert (tmp_path / "fork").read_bytes() == (tmp_path / "own").read_bytes()
    assert held(read_cache(tmp_path / "fork", 600)[1]) == whole


def test_a_write_that_is_told_to_stop_leaves_nothing(store, tmp_path):
    store.save(MODEL, np.array(DOCUMENT), holding(DOCUMENT), lambda: False)
    assert list(store.folder.iterdir()) == []
    with pytest.raises(WriteInterrupted):
        write_cache(tmp_path / "f", holding(DOCUMENT), np.array(DOCUMENT), MODEL, lambda: False)


KILLED = """
    import os, signal, sys
    import numpy as np
    from rapid_integrations.cache.prefix_store import PrefixStore
    from tests.toys.token_cache import holding, text

    written = 0

    def slowly():
        global written
        written += 1
        if written == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return True

    PrefixStore(sys.argv[1]).save("a" * 64, np.array(text(1, 600)), holding(text(1, 600)), slowly)
"""


def test_kill_9_while_saving_leaves_nothing_that_is_read(store, children):
    done = children.run(textwrap.dedent(KILLED), store.folder)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (partial,) = store.folder.iterdir()
    assert partial.name.startswith(".partial-") and partial.stat().st_size > 0
    assert load(store, [*DOCUMENT, 1]) is None
    save(store, DOCUMENT)
    assert load(store, [*DOCUMENT, 1]) == DOCUMENT
    assert partial.exists()  # somebody may still be writing it
    os.utime(partial, (1, 1))
    save(store, text(2, 600))
    assert not partial.exists() and len(files(store)) == 2


# --- the thread -------------------------------------------------------------------------------------------------


def test_the_newest_jobs_win_and_closing_finishes_them():
    saver = BackgroundSaver()
    running, go = threading.Event(), threading.Event()
    done = []

    def first(go_on):
        running.set()
        go.wait(60)
        done.append(0)

    saver.submit(first)
    assert running.wait(60)
    for number in range(1, 6):
        saver.submit(lambda go_on, number=number: done.append(number))
    go.set()
    assert saver.close(60)
    assert done == [0, *range(6 - WAITING, 6)]
    saver.submit(lambda go_on: done.append("late"))
    assert saver.close(60) and "late" not in done


def test_closing_waits_for_a_bounded_time_and_then_stops_the_write():
    saver = BackgroundSaver()
    stopped = threading.Event()

    def endless(go_on):
        while go_on():
            time.sleep(0.01)
        stopped.set()

    saver.submit(endless)
    assert not saver.close(0.2)
    assert stopped.is_set()


def test_a_job_that_fails_leaves_the_thread_alive():
    saver = BackgroundSaver()
    done = threading.Event()

    def fail(go_on):
        raise CacheError("no such type")

    with pytest.warns(RuntimeWarning, match="not kept on disk: .*no such type"):
        saver.submit(fail)
        saver.submit(lambda go_on: done.set())
        assert done.wait(60)
    assert saver.close(60)


def test_the_end_of_the_interpreter_finishes_what_waits():
    saver, done = BackgroundSaver(exit_s=5.0), []
    saver.submit(lambda go_on: done.append(go_on()))
    saver._at_exit()
    assert done == [True]


# --- what changes between two looks at a file -------------------------------------------------------------------------


def test_a_file_that_became_another_between_index_and_load_is_not_used(store, monkeypatch):
    save(store, DOCUMENT)

    def other(*args):
        saved, cache = read_cache(*args)
        return replace(saved, model=OTHER), cache

    monkeypatch.setattr(prefix_store, "read_cache", other)
    with pytest.warns(RuntimeWarning, match="about another text than its header said"):
        assert load(store, DOCUMENT) is None


def test_a_file_that_goes_while_it_is_touched_is_no_error(store, monkeypatch):
    save(store, DOCUMENT)
    monkeypatch.setattr(prefix_store.os, "utime", lambda path: Path(str(path) + "gone").stat())
    save(store, DOCUMENT)  # is there already
    assert store._writable


@pytest.mark.parametrize("length", [None, 80])
def test_rows_in_eight_bits_come_back_as_they_were(tmp_path, length):
    cache = KVCache(2, 100, kv_dtype="int8")
    rows = torch.randn(4, 1, 2, 100, 8, generator=torch.Generator().manual_seed(0))
    for layer in range(2):
        cache.write(layer, *rows[2 * layer : 2 * layer + 2])
    cache.advance(100)
    write_cache(tmp_path / "f", cache, np.arange(100), MODEL)
    again = read_cache(tmp_path / "f", 120, length)[1]
    assert again.kv_dtype == "int8" and again.length == (length or 100)
    for layer in range(2):
        for found, held_rows in zip(again.layer(layer), cache.layer(layer), strict=True):
            assert torch.equal(found, held_rows[:, :, : again.length])
    damaged = bytearray((tmp_path / "f").read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "f").write_bytes(damaged)
    with pytest.raises(CacheError, match="does not match its digest"):
        read_cache(tmp_path / "f", 120, length)


def test_a_file_with_only_some_rows_in_eight_bits_is_refused(tmp_path):
    cache = KVCache(2, 10)
    for layer, dtype in enumerate((torch.int8, torch.float32)):
        cache.write(layer, *(torch.zeros(1, 1, 5, 8, dtype=dtype) for _ in range(2)))
    cache.advance(5)
    write_cache(tmp_path / "f", cache, np.arange(5), MODEL)
    with pytest.raises(CacheError, match="only some of its rows are in eight bits"):
        read_cache(tmp_path / "f", 10)


def test_rows_of_a_type_without_a_name_in_the_format_are_refused(tmp_path):
    cache = KVCache(1, 10)
    cache.write(0, *(torch.zeros(1, 1, 5, 2, dtype=torch.uint8) for _ in range(2)))
    cache.advance(5)
    with pytest.raises(CacheError, check=coded("cache.type")):
        write_cache(tmp_path / "f", cache, np.arange(5), MODEL)


def windowed(length):
    """Return a cache that has freed rows of its second layer, and its tokens."""
    tokens = text(5, length)
    cache = KVCache(LAYERS, length, windows=(None, 10))
    for begin in range(0, length, 50):
        append(cache, tokens[begin : begin + 50])
    return cache, np.array(tokens, dtype=np.int64)


@pytest.mark.parametrize("length", [None, 380, 320])
def test_a_file_holds_the_rows_that_windows_have_not_freed(tmp_path, length):
    with rows_freed_early():
        cache, tokens = windowed(390)
        write_cache(tmp_path / "freed", cache, tokens, "model")
        saved, found = read_cache(tmp_path / "freed", 600, length)
        length = length or 390
        assert saved.windows == found.windows == (None, 10) and saved.freed == tuple(cache.freed) != ()
        assert found.length == length and found.reusable(length) == length and found.reusable(200) < 200
        assert found.freed == [(begin, min(end, length)) for begin, end in cache.freed if begin < length]
        for layer, first in ((0, 0), (1, length - 10)):
            for ours, theirs in zip(found.layer(layer), cache.layer(layer), strict=True):
                assert torch.equal(ours[:, :, first:], theirs[:, :, first:length])
        append(found, text(6, 200))  # it goes on freeing
        assert found.freed[-1][1] > length
    whole = KVCache(LAYERS, 390)
    append(whole, tokens.tolist())
    write_cache(tmp_path / "whole", whole, tokens, "model")
    held = 390 - sum(end - begin for begin, end in cache.freed)
    rows = [each.nbytes // 390 for each in whole.layer(0)]
    saved_bytes = (tmp_path / "whole").stat().st_size - (tmp_path / "freed").stat().st_size
    assert abs(saved_bytes - sum(rows) * (390 - held)) < 200  # headers differ a little


def test_a_file_is_not_read_where_rows_are_missing(tmp_path):
    with rows_freed_early():
        cache, tokens = windowed(390)
        write_cache(tmp_path / "freed", cache, tokens, "model")
        with pytest.raises(CacheError, check=coded("cache.window")):
            read_cache(tmp_path / "freed", 600, 250)
        store = PrefixStore(tmp_path)
        store.save("model", tokens, cache, lambda: True)
        other = [*tokens[:290].tolist(), *text(9, 100)]
        found = store.load("model", other, 400, torch.device("cpu"), 0)
        assert found is not None and found.length == cache.reusable(290) == 256 == store.holds("model", other)


def test_a_file_with_windows_of_other_layers_is_refused(tmp_path):
    with rows_freed_early():
        cache, tokens = windowed(390)
        cache.windows = (None, 10, 10)
        write_cache(tmp_path / "freed", cache, tokens, "model")
        with pytest.raises(CacheError, match="windows of other layers"):
            read_cache(tmp_path / "freed", 600)


# --- recurrent states -------------------------------------------------------------------------------------------


def recurrent(token_ids, every=100):
    """A cache of a text with states that say which tokens they have read."""
    cache = holding(token_ids)
    cache.state = RecordedState(
        StateShape(layers=2, heads=1, key_dim=2, value_dim=3, channels=5, rates=2, taps=4), every
    )
    for begin, end in ((0, 250), (250, len(token_ids) - 3)):
        done = cache.state.begin(begin, end - begin, of_prompt=True)
        for stop, into in zip(done.stops, done.states, strict=True):
            into.matrices.fill_(begin + stop)
            into.inputs.fill_(-1.0 - begin - stop)
        cache.state.end(done)
    cache.state.end(cache.state.begin(len(token_ids) - 3, 3, of_prompt=False))  # an answer, which is recorded
    return cache


def test_states_come_back_and_texts_go_on_from_them(store):
    store.save(MODEL, np.array(DOCUMENT), recurrent(DOCUMENT), lambda: True)
    assert store.holds(MODEL, DOCUMENT) == 597
    for shared, reused in ((600, 597), (597, 597), (450, 400), (399, 300)):
        wanted = [*DOCUMENT[:shared], *text(2, 100)]
        cache = PrefixStore(store.folder).load(MODEL, wanted, 1000, CPU, 0)
        assert (cache.length, cache.state.position, held(cache)) == (reused, reused, DOCUMENT[:reused])
        last = cache.state.states[-1].tensors
        assert (last["matrices"] == reused).all() and (last["inputs"] == -1.0 - reused).all()
        assert [each.position for each in cache.state.states] == [*range(100, reused, 100), reused]
        assert cache.state.every == 100 and cache.fork(300, 1000).state.position == 300
    assert store.load(MODEL, [*DOCUMENT[:90], *text(2, 100)], 1000, CPU, 0) is None  # no state is so early


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"states": "[600, 100]"}, "states behind"),
        ({"states": "[0, 100]"}, "states behind"),
        ({"states": "[100, 700]"}, "states behind"),
        ({"states": "[100]"}, "something else"),
        ({"every": "0"}, "states have shapes"),
        ({"rates": "0"}, "does not match its digest"),
        ({"rates": "-1"}, "states have shapes"),
    ],
)
def test_a_file_with_other_states_than_it_says_is_refused(tmp_path, wrong, said):
    path = tmp_path / "file.safetensors"
    write_cache(path, recurrent(DOCUMENT), np.array(DOCUMENT), MODEL)
    with safe_open(path, framework="pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    save_file(tensors, path, metadata | wrong)
    with pytest.raises(CacheError, match=said):
        read_cache(path, 1000)


def test_states_of_another_shape_are_refused(tmp_path):
    path = tmp_path / "file.safetensors"
    write_cache(path, recurrent(DOCUMENT), np.array(DOCUMENT), MODEL)
    with safe_open(path, framework="pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    for name, tensor in (("state.100.matrices", torch.zeros(2, 1, 3, 2)), ("state.597.inputs", torch.zeros(1, 3, 5))):
        save_file({**tensors, name: tensor}, path, metadata)
        with pytest.raises(CacheError, match="states have shapes"):
            read_cache(path, 1000)
