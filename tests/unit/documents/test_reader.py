"""Several files and folders: order, names, what is skipped, and what is not."""

import io
import os
import sys

import pytest

from rapid_integrations.documents import (
    Document,
    Documents,
    ReadLimits,
    Skipped,
    read_document,
    read_documents,
    read_utf8,
)
from rapid_integrations.errors import DocumentError, PromptError
from tests.toys.document_files import pdf


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (
        "part 10.md",
        "part 2.md",
        "Part 1.txt",
        "deep/er/part 3.md",
        ".hidden.md",
        ".git/config",
        "~$lock.docx",
    ):
        path = tmp_path / "docs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"text of {name}")
    return tmp_path / "docs"


def sources(documents):
    return [document.source for document in documents]


def test_a_folder_in_the_order_of_its_names(folder):
    documents = read_documents("docs")
    assert sources(documents) == ["docs/deep/er/part 3.md", "docs/Part 1.txt", "docs/part 2.md", "docs/part 10.md"]
    assert documents.names == ("part 3.md", "Part 1.txt", "part 2.md", "part 10.md")
    assert documents.skipped == () and len(documents) == 4


def test_files_keep_their_order_and_count_once(folder):
    documents = read_documents(["docs/part 2.md", folder, folder / "part 2.md"])
    assert sources(documents)[0] == "docs/part 2.md"
    assert len(documents) == 4


def test_links_do_not_lead_in_circles(folder):
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "same.md").symlink_to(folder / "part 2.md")
    assert len(read_documents(folder)) == 4


def test_pipes_in_a_folder_are_not_waited_for(folder):
    os.mkfifo(folder / "pipe")
    found = read_documents(folder)
    assert len(found) == 4
    assert Skipped(str(folder / "pipe"), "is a pipe, socket or device") in found.skipped


def test_a_link_to_a_file_that_is_gone_is_named(folder):
    (folder / "moved.md").symlink_to(folder / "nowhere.md")
    (folder / "itself.md").symlink_to(folder / "itself.md")
    found = read_documents(folder)
    assert len(found) == 4
    for name in ("moved.md", "itself.md"):
        assert Skipped(str(folder / name), "is a link to no file") in found.skipped


def test_names_tell_documents_apart():
    def names(*paths):
        return Documents(tuple(Document("text", path) for path in paths)).names

    assert names("a/x.md", "b/x.md", "b/y.md") == ("a/x.md", "b/x.md", "y.md")
    assert names("x.md", "b/x.md") == ("x.md", "b/x.md")
    assert names("/tmp/a\nb\x1b[31m.md") == ("a\ufffdb\ufffd[31m.md",)


def test_all_unreadable_files_are_named(folder):
    (folder / "scan.pdf").write_bytes(pdf(None))
    (folder / "x.doc").write_bytes(b"\xd0\xcf\x11\xe0")
    with pytest.raises(DocumentError) as caught:
        read_documents("docs")
    assert str(caught.value).startswith("2 of 6 files cannot be read: docs/scan.pdf has no text layer")
    assert "docs/x.doc is an old or encrypted" in str(caught.value) and "--skip-unreadable" in str(caught.value)


def test_unreadable_files_are_skipped_when_asked_and_named(folder):
    (folder / "x.doc").write_bytes(b"\xd0\xcf\x11\xe0")
    documents = read_documents(["docs", "missing.md"], skip_unreadable=True)
    assert len(documents) == 4
    assert [skipped.source for skipped in documents.skipped] == ["docs/x.doc", "missing.md"]
    assert documents.skipped[1] == Skipped("missing.md", "cannot be read: No such file or directory")


def test_skipping_everything_is_an_error(folder):
    with pytest.raises(DocumentError, match=r"^2 of 2 files cannot be read: a cannot .*; b cannot"):
        read_documents(["a", "b"], skip_unreadable=True)
    with pytest.raises(DocumentError, match=r"^a cannot be read: No such file"):
        read_documents("a", skip_unreadable=True)


def test_many_unreadable_files_are_counted(folder):
    with pytest.raises(DocumentError, match=r"; and 5 more\. Leave"):
        read_documents([f"missing {number}" for number in range(15)])


def test_folders_are_bounded(folder):
    with pytest.raises(DocumentError, match="docs holds more than 2 files"):
        read_documents("docs", limits=ReadLimits(files=2))
    with pytest.raises(DocumentError, match="brings the text to more than 40 characters"):
        read_documents("docs", limits=ReadLimits(characters=40))


def test_empty_folders_and_no_files_at_all(folder):
    (folder / "none").mkdir()
    (folder / "none" / ".keep").write_text("x")
    with pytest.raises(DocumentError, match="docs/none is a folder without files"):
        read_documents("docs/none")
    with pytest.raises(PromptError, match="no document was given"):
        read_documents([])


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission(folder):
    (folder / "part 2.md").chmod(0)
    with pytest.raises(DocumentError, match="part 2.md cannot be read: Permission denied"):
        read_documents("docs")


def test_one_file(folder):
    assert read_document("docs/part 2.md") == Document("text of part 2.md", "docs/part 2.md")
    with pytest.raises(DocumentError, match="docs cannot be read: Is a directory"):
        read_document("docs")
    with pytest.raises(DocumentError, match="cannot be read"):
        read_document("a\0b")


@pytest.mark.parametrize("data", [b"", b" \n", b"\xef\xbb\xbf", b"\xff\xfe", "\u00a0\u3000".encode()])
def test_a_file_of_marks_and_white_space_has_no_text(folder, data):
    (folder / "blank.txt").write_bytes(data)
    with pytest.raises(DocumentError, match="nothing to answer from"):
        read_document(folder / "blank.txt")


def test_standard_input_may_be_anything(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(pdf("words"))))
    assert read_document("-") == Document("words", "standard input", "pdf", pages=((0, 5),))


def test_utf8_data_files(folder):
    assert read_utf8(folder / "part 2.md") == "text of part 2.md"
    (folder / "latin.jsonl").write_bytes(b"\xfcber")
    with pytest.raises(DocumentError, match=r"latin.jsonl is not UTF-8 text \(byte 0\)"):
        read_utf8(folder / "latin.jsonl")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("https://example.org/report.pdf", "is an address and no file: download it"),
        ("*.nothing", "A shell replaces"),
        ("nothing.md", "cannot be read: No such file or directory$"),
    ],
)
def test_what_is_no_file_is_told_apart(path, said):
    with pytest.raises(DocumentError, match=said):
        read_documents(path)
