"""Documents over HTTP: upload, list, read, delete; names and bytes that a stranger chose."""

import time

import pytest

from tests.toys.document_files import docx, paragraph, pdf
from tests.toys.models import words
from tests.toys.served import client_of, running, tiny_engine, uploaded

HOSTILE = [
    "../../../etc/passwd",
    "..\\..\\windows\\system.ini",
    "/etc/passwd",
    "a\x00b.txt",
    'x"; filename=other.txt',
    "<script>alert(1)</script>.html",
    "a\r\nSet-Cookie: a=b.txt",
    "\u202ecod.exe",
    "..",
    "",
    "n" * 5000 + ".txt",
    "ünïcode 名前.txt",
]


def test_a_document_is_uploaded_listed_read_and_deleted(client):
    text = words(7, 50)
    file = uploaded(client, text, "seven.txt")
    assert file["object"] == "file" and file["bytes"] == len(text) and file["purpose"] == "assistants"
    assert file["rapid"]["tokens"] > len(text) and file["rapid"]["pages"] is None
    assert client.get(f"/v1/files/{file['id']}/text").json() == {"text": text, "pages": None}
    content = client.get(f"/v1/files/{file['id']}/content")
    assert content.text == text and content.headers["content-disposition"].startswith("attachment")
    assert content.headers["x-content-type-options"] == "nosniff"
    assert file["id"] in {each["id"] for each in client.get("/v1/files").json()["data"]}
    assert client.delete(f"/v1/files/{file['id']}").json() == {"id": file["id"], "object": "file", "deleted": True}
    for path in ("", "/content", "/text"):
        assert client.get(f"/v1/files/{file['id']}{path}").status_code == 404
    assert client.delete(f"/v1/files/{file['id']}").status_code == 404


def test_lists_come_in_pages(app_of):
    with running(app_of()) as address, client_of(address) as client:
        ids = [uploaded(client, f"text {number}", f"{number}.txt")["id"] for number in range(3)]
        first = client.get("/v1/files", params={"limit": 2, "order": "asc"}).json()
        assert first["has_more"] and len(first["data"]) == 2
        rest = client.get("/v1/files", params={"after": first["last_id"], "order": "asc"}).json()
        assert not rest["has_more"] and {each["id"] for each in first["data"] + rest["data"]} == set(ids)
        assert client.get("/v1/files", params={"purpose": "vision"}).json()["data"] == []
        for wrong in ("0", "a", "-1", "10001", "9" * 40, "²"):
            assert client.get("/v1/files", params={"limit": wrong}).status_code == 400


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_become_no_paths_and_no_headers(app_of, tmp_path_factory, name):
    folder = tmp_path_factory.mktemp("store")
    with running(app_of(files_dir=folder / "files")) as address, client_of(address) as client:
        answer = client.post("/v1/files", files={"file": (name, b"some text")}, data={"purpose": "assistants"})
        assert answer.status_code in (200, 400)
        if answer.status_code == 200:
            file = answer.json()
            assert len(file["filename"]) <= 200 and file["filename"].isprintable()
            assert not set(file["filename"]) & set("/\\\r\n\x00") and file["filename"] not in ("", ".", "..")
            content = client.get(f"/v1/files/{file['id']}/content")
            assert content.content == b"some text" and "set-cookie" not in content.headers
            assert content.headers["content-type"] == "application/octet-stream"
        assert [path.name for path in folder.iterdir()] == ["files"]
        kept = {path.name for path in (folder / "files").rglob("*")}
        assert all(each in ("content", "facts.json", "text.json") or each.startswith("file-") for each in kept)


@pytest.mark.parametrize(
    "given", ["..", "../keys", "%2e%2e%2fkeys", "file-" + "0" * 32, "file-" + "0" * 33, "a" * 5000]
)
def test_no_id_leaves_the_store(client, given):
    for path in ("", "/content", "/text"):
        assert client.get(f"/v1/files/{given}{path}").status_code in (404, 405)
    assert client.delete(f"/v1/files/{given}").status_code in (404, 405)


def test_what_has_no_text_says_why(client):
    for content, said in ((b"", "It is empty"), (b"\x00\x01\x02" * 100, "text"), (b"%PDF-1.7 broken", "It ")):
        file = uploaded(client, content, "a.pdf" if content[:1] == b"%" else "a.bin")
        assert file["status"] == "error" and said in file["status_details"]
        body = {
            "model": "tiny",
            "messages": [{"role": "user", "content": "a"}],
            "rapid": {"documents": [{"file_id": file["id"]}]},
        }
        refused = client.post("/v1/chat/completions", json=body)
        assert refused.status_code == 409 and refused.json()["error"]["code"] == "file_without_text"
        assert refused.json()["error"]["message"] == f"{file['filename']} could not be read. {file['status_details']}"


@pytest.mark.parametrize(
    ("name", "content", "pages"),
    [
        ("a.pdf", pdf("The first page is about apples.", "The second page is about pears."), 2),
        ("a.docx", docx(paragraph("The first page is about apples.") + paragraph("And then about pears.")), None),
        ("a.html", b"<html><body><h1>Fruit</h1><p>It is about <b>apples</b> and pears.</p></body></html>", None),
        ("a.md", b"# Fruit\n\nIt is about apples and pears.\n", None),
        ("a.txt", "It is about apples and pears: caf\u00e9.".encode("cp1252"), None),
    ],
)
def test_formats_become_text_and_pages(client, name, content, pages):
    file = uploaded(client, content, name)
    assert file["status"] == "processed" and file["rapid"]["pages"] == pages and file["rapid"]["read"], file
    found = client.get(f"/v1/files/{file['id']}/text").json()
    assert "about" in found["text"] and "apples" in found["text"] and "pears" in found["text"]
    assert "<b>" not in found["text"]
    if pages:
        (start, end), second = found["pages"]
        assert "apples" in found["text"][start:end] and "pears" in found["text"][slice(*second)]
    assert client.get(f"/v1/files/{file['id']}/content").content == content


def test_a_document_beyond_the_context_window_is_an_error_at_once(client):
    file = uploaded(client, words(1, 8000))
    assert file["status"] == "error" and "holds 32,768 tokens" in file["status_details"]


def test_a_text_that_is_far_too_long_is_refused_before_all_of_it_is_counted(client):
    file = uploaded(client, "all of this " * 100_000)
    assert file["status"] == "error" and "the prompt has about" in file["status_details"]
    assert file["rapid"]["tokens"] is None


def test_a_document_that_was_too_long_is_read_by_a_model_that_has_room(app_of, tmp_path):
    with tiny_engine(window=256) as small, running(app_of(engine=small, files_dir=tmp_path)) as address:
        with client_of(address) as client:
            file = uploaded(client, words(1, 400))
            assert file["status"] == "error" and "holds 256 tokens" in file["status_details"]
            binary = uploaded(client, b"MZ" + bytes(500), "program.exe")
            assert binary["status"] == "error"
    with running(app_of(files_dir=tmp_path)) as address, client_of(address) as client:
        deadline = time.monotonic() + 120
        while not (found := client.get(f"/v1/files/{file['id']}").json())["rapid"]["read"]:
            assert time.monotonic() < deadline, found
            time.sleep(0.05)
        assert found["status"] == "processed" and found["status_details"] is None and found["rapid"]["tokens"] > 256
        assert client.get(f"/v1/files/{binary['id']}").json()["status_details"] == binary["status_details"]


def test_a_question_waits_for_a_document_that_is_being_read(client):
    file = uploaded(client, words(9, 300), wait=False)
    body = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "Which?"}],
        "rapid": {"documents": [{"file_id": file["id"]}]},
    }
    assert client.post("/v1/chat/completions", json=body).json()["rapid"]["sources"]


def test_limits_of_the_store(app_of):
    with running(app_of(max_file_bytes=1000, max_files=2, max_files_bytes=1500)) as address:
        with client_of(address) as client:

            def given(size):
                return client.post("/v1/files", files={"file": ("a.txt", b"a" * size)}, data={"purpose": "user_data"})

            assert given(1001).json()["error"]["code"] == "file_too_large"
            assert given(200_000).json()["error"]["code"] == "body_too_large"
            first = given(900)
            assert first.status_code == 200
            assert given(700).json()["error"]["code"] == "store_full"
            assert given(100).status_code == 200
            assert given(1).json()["error"]["code"] == "too_many_files"
            assert client.delete(f"/v1/files/{first.json()['id']}").status_code == 200
            assert given(1).status_code == 200


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{}", "application/json", 415),
        (b"", "multipart/form-data", 400),
        (b"rubbish", "multipart/form-data; boundary=x", 400),
        (
            b"--x\r\nContent-Disposition: form-data; name=file\r\n\r\ntext\r\n--x--\r\n",
            "multipart/form-data; boundary=x",
            400,
        ),
    ],
)
def test_what_is_no_form_with_a_file(client, body, kind, status):
    answer = client.post("/v1/files", content=body, headers={"Content-Type": kind})
    assert answer.status_code == status and answer.json()["error"]["message"]


def test_documents_outlive_the_server(app_of, tmp_path):
    with running(app_of(files_dir=tmp_path)) as address, client_of(address) as client:
        file = uploaded(client, words(2, 60), "kept.txt")
    (tmp_path / ("file-" + "a" * 32)).mkdir()  # an upload that did not end
    with running(app_of(files_dir=tmp_path)) as address, client_of(address) as client:
        (again,) = client.get("/v1/files").json()["data"]
        assert again["filename"] == "kept.txt" and again["status"] == "processed" and not again["rapid"]["read"]
        assert client.get(f"/v1/files/{file['id']}/text").json()["text"] == words(2, 60)
    assert [path.name for path in tmp_path.iterdir()] == [file["id"]]
