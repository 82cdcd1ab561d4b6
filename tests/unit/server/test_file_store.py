"""The folder of uploaded documents, which several servers may share."""

import io
import os
import threading
import time

import pytest

pytest.importorskip("starlette")

from rapid_integrations.documents import Document
from rapid_integrations.server.failures import ApiError
from rapid_integrations.server.file_store import FileStore, new_file_id


def store_at(folder, files=10, size=1000):
    return FileStore(folder, files, size)


def add(store, content=b"text", name="a.txt", **more):
    return store.add(name, "assistants", io.BytesIO(content), len(content), **more)


def test_two_stores_over_one_folder_see_each_others_files(tmp_path):
    here, there = store_at(tmp_path), store_at(tmp_path)
    file = add(here)
    assert there.get(file.id) == file and there.all() == [file] and len(there) == 1
    there.keep_text(file.id, Document("text", "a.txt", "text"))
    there.change(file.id, status="processed", pages=3)
    assert here.get(file.id).status == "processed" and here.document(file.id).text == "text"
    there.change(file.id, progress=("read", 1, 4))
    assert here.get(file.id).progress == ("read", 1, 4)
    here.remove(file.id)
    assert len(there) == 0 and there.all() == []
    with pytest.raises(ApiError, match="No such File"):
        there.get(file.id)
    there.change(file.id, status="error")  # nothing comes back
    assert list(tmp_path.iterdir()) == []


def test_an_upload_may_be_repeated_under_its_id(tmp_path):
    here, there, file_id = store_at(tmp_path), store_at(tmp_path), new_file_id()
    add(here, b"first", file_id=file_id)
    assert add(there, b"second", file_id=file_id).id == file_id
    assert here.content(file_id).read_bytes() == b"second" and len(here) == 1


def test_limits_count_what_all_have(tmp_path):
    here, there = store_at(tmp_path, files=2, size=100), store_at(tmp_path, files=2, size=100)
    add(here, b"x" * 60)
    with pytest.raises(ApiError, match="larger than 100 bytes") as failed:
        add(there, b"x" * 60)
    assert failed.value.status == 413
    add(there, b"x" * 40)
    with pytest.raises(ApiError, match="keeps 2 files already"):
        add(here, b"")
    assert len(here) == 2


def test_an_upload_that_fails_leaves_nothing(tmp_path):
    class Broken(io.BytesIO):
        def read(self, *_):
            raise OSError("the connection broke")

    store = store_at(tmp_path)
    with pytest.raises(OSError, match="broke"):
        store.add("a.txt", "assistants", Broken(), 4)
    assert list(tmp_path.iterdir()) == [] and len(store) == 0
    add(store, b"x" * 1000)  # the place of the broken one is free


def test_a_server_that_starts_leaves_the_uploads_of_others_alone(tmp_path):
    young, old = (tmp_path / f".arriving-{digit * 32}" for digit in "ab")
    for folder in (young, old):
        folder.mkdir()
        (folder / "content").write_text("half")
    os.utime(old, (time.time() - 7200,) * 2)
    store_at(tmp_path)
    assert young.exists() and not old.exists()


def test_progress_of_a_server_that_ended_is_forgotten(tmp_path):
    here = store_at(tmp_path)
    file = add(here)
    here.change(file.id, progress=("read", 1, 4))
    os.utime(tmp_path / file.id / "facts.json", (time.time() - 3600,) * 2)
    assert store_at(tmp_path).get(file.id).progress is None


def test_threads_of_two_stores_change_one_file(tmp_path):
    stores = [store_at(tmp_path), store_at(tmp_path)]
    file = add(stores[0])
    failed = []

    def work(store):
        try:
            for number in range(50):
                store.change(file.id, tokens=number)
                assert store.get(file.id).tokens is not None
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == [] and stores[0].get(file.id).tokens == stores[1].get(file.id).tokens == 49
    assert sorted(path.name for path in (tmp_path / file.id).iterdir()) == ["content", "facts.json"]


def test_no_link_is_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    file = add(store_at(tmp_path / "elsewhere"))
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / file.id).symlink_to(tmp_path / "elsewhere" / file.id)
    store = store_at(tmp_path / "files")
    assert store.all() == [] and (tmp_path / "elsewhere" / file.id / "content").exists()
