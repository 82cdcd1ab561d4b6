"""The routes of the page at `/`."""

import re
from pathlib import Path

import rapid_integrations.server.page
from rapid_integrations.server.keys import add_key
from tests.toys.served import client_of, running

FOLDER = Path(rapid_integrations.server.page.__file__).parent
NAMES = sorted(path.name for path in FOLDER.iterdir() if path.suffix in (".html", ".css", ".js", ".svg"))


def test_every_file_is_there_and_names_only_files_that_are(client):
    assert "index.html" in NAMES and len(NAMES) > 10
    html = client.get("/")
    assert html.status_code == 200 and html.headers["content-type"].startswith("text/html")
    for name in NAMES:
        found = client.get(f"/page/{name}")
        assert found.status_code == 200 and found.content == (FOLDER / name).read_bytes()
        text = found.text
        imported = re.findall(r'from "\./([^"]+)"', text) + re.findall(r'(?:href|src)="/page/([^"]+)"', text)
        assert set(imported) <= set(NAMES)
    assert client.get("/page/main.js").headers["content-type"].startswith("text/javascript")


def test_nothing_else_is_served(client):
    for name in ("__init__.py", "..%2fapp.py", "%2e%2e/app.py", "nothing.js", ""):
        assert client.get(f"/page/{name}").status_code == 404


def test_the_policy_lets_nothing_inline_run_and_the_files_hold_nothing_inline(client):
    for path in ("/", "/page/main.js"):
        policy = client.get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert "require-trusted-types-for 'script'" in policy and "frame-ancestors 'none'" in policy
    html = (FOLDER / "index.html").read_text()
    assert re.findall(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=|https?://", html) == []
    for name in NAMES:
        if name.endswith(".js"):
            assert not re.search(
                r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", (FOLDER / name).read_text()
            )


def test_a_file_that_has_not_changed_is_not_sent_again(client):
    first = client.get("/page/main.js")
    again = client.get("/page/main.js", headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304 and again.content == b""


def test_the_page_itself_needs_no_key(app_of, tmp_path):
    add_key(tmp_path / "keys", "mine")
    with running(app_of(api_keys=tmp_path / "keys")) as address, client_of(address) as client:
        assert client.get("/").status_code == client.get("/page/main.js").status_code == 200
        assert client.get("/v1/models").status_code == 401
