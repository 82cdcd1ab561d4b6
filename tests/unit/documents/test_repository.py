"""A source repository as a folder: what holds no text is left out, and said."""

import pytest

from rapid_integrations.documents import read_documents
from rapid_integrations.errors import DocumentError
from tests.toys.document_files import pdf


@pytest.fixture
def repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = {
        "README.md": b"# The tool",
        "tool/__init__.py": b"",
        "tool/main.py": b"print('hello')\n",
        "tool/__pycache__/main.cpython-311.pyc": b"\xa7\r\r\n\0\0\0\0",
        "tool/logo.png": b"\x89PNG\r\n\x1a\n\0",
        "tool/native.so": b"\x7fELF\2\1\1\0",
        "tool/data.bin": bytes(range(256)),
        "web/node_modules/left-pad/index.js": b"module.exports = 1",
        "env/pyvenv.cfg": b"home = /usr/bin",
        "env/lib/thing.py": b"x = 1",
        ".git/config": b"[core]",
        ".env": b"SECRET=1",
    }
    for name, data in files.items():
        path = tmp_path / "repo" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "repo"


def test_a_repository_is_read_without_a_flag(repository):
    documents = read_documents("repo")
    assert [document.source for document in documents] == ["repo/README.md", "repo/tool/main.py"]


def test_what_is_left_out_is_said_with_the_reason(repository):
    skipped = {each.source: each.reason for each in read_documents("repo").skipped}
    assert skipped["repo/tool/__init__.py"] == "is empty: there is nothing to answer from"
    assert skipped["repo/tool/logo.png"].startswith("is a PNG picture")
    assert skipped["repo/tool/native.so"].startswith("is a program")
    assert skipped["repo/tool/data.bin"].startswith("is a binary file")
    for folder in ("repo/tool/__pycache__", "repo/web/node_modules", "repo/env"):
        assert skipped[folder] == "is a folder that tools fill: name it to read it"
    assert len(skipped) == 7


def test_a_folder_that_tools_fill_is_read_when_it_is_named(repository):
    (document,) = read_documents("repo/web/node_modules")
    assert document.text == "module.exports = 1"


def test_a_damaged_document_in_a_folder_is_still_an_error(repository):
    (repository / "scan.pdf").write_bytes(pdf(None))
    with pytest.raises(DocumentError, match=r"1 of 7 files cannot be read: repo/scan.pdf has no text layer"):
        read_documents("repo")


def test_a_file_without_text_that_is_named_is_an_error(repository):
    with pytest.raises(DocumentError, match="__init__.py is empty"):
        read_documents("repo/tool/__init__.py")
    with pytest.raises(DocumentError, match="1 of 2 files cannot be read: repo/tool/logo.png is a PNG picture"):
        read_documents(["repo/README.md", "repo/tool/logo.png"])


def test_a_folder_of_nothing_but_pictures(repository):
    for name in ("a", "b"):
        (repository / "pictures").mkdir(exist_ok=True)
        (repository / "pictures" / f"{name}.png").write_bytes(b"\x89PNG")
    with pytest.raises(DocumentError, match="2 of 2 files cannot be read: repo/pictures/a.png is a PNG picture"):
        read_documents("repo/pictures")
