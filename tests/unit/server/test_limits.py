"""Bodies that are too large or too slow, JSON that is none, and idle connections."""

import contextlib
import socket
import time

import pytest

from tests.toys.served import client_of, running

CHAT = "/v1/chat/completions"
JSON = {"Content-Type": "application/json"}


def test_a_body_is_refused_by_its_declared_size_and_by_its_real_one(app_of):
    with running(app_of(max_body_bytes=1000)) as address, client_of(address) as client:
        refused = client.post(CHAT, content=b" " * 1001, headers=JSON)
        assert refused.status_code == 413 and refused.json()["error"]["code"] == "body_too_large"
        pieces = (b" " * 100 for _ in range(100))  # without a declared size
        assert client.post(CHAT, content=pieces, headers=JSON).status_code == 413
        assert client.post(CHAT, content=b"{" * 900, headers=JSON).status_code == 400


def connected(address):
    host, port = address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=60)


def test_a_slow_body_is_ended(app_of):
    with running(app_of(body_timeout_s=0.5)) as address, connected(address) as slow:
        start = time.monotonic()
        head = (
            f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
        )
        slow.sendall(head.encode() + b"{")
        with client_of(address) as client:  # others are answered meanwhile
            assert client.get("/health").status_code == 200
        answer = b""
        while b"body_timeout" not in answer and (more := slow.recv(65536)):  # head and body come apart now and then
            answer += more
        assert b" 408 " in answer and b"body_timeout" in answer
        assert time.monotonic() - start > 0.4


def test_a_body_that_ends_early_is_nobodys_fault(client, address):
    with connected(address) as gone:
        gone.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{{".encode())
    assert client.get("/health").status_code == 200


def test_headers_without_an_end_are_refused(address):
    with connected(address) as endless, contextlib.suppress(ConnectionError):
        endless.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: ")
        for _ in range(1000):  # it is cut long before
            endless.sendall(b"a" * 65536)
        pytest.fail("64 MB of headers were taken")


def test_a_connection_outlives_those_that_proxies_keep(app_of):
    from rapid_integrations.server.serving import server_of

    # nginx and the usual load balancers keep theirs for 60 s, and answer 502 if they use one that is closed.
    assert server_of(app_of(), "127.0.0.1", 0).config.timeout_keep_alive > 60


def test_a_thousand_idle_connections_keep_nobody_out(address, client):
    idle = []
    try:
        for _ in range(1000):
            try:
                idle.append(connected(address))
            except OSError:  # the limit of open files
                break
        assert len(idle) > 200
        assert client.get("/v1/models").status_code == 200
        body = {"model": "tiny", "messages": [{"role": "user", "content": "a"}], "max_tokens": 2}
        assert client.post(CHAT, json=body).status_code == 200
    finally:
        for each in idle:
            each.close()


@pytest.mark.parametrize(
    ("content", "kind", "status", "code"),
    [
        (b"", "application/json", 400, "invalid_json"),
        (b"nonsense", "application/json", 400, "invalid_json"),
        (b"[1]", "application/json", 400, "invalid_value"),
        (b"null", "application/json", 400, "invalid_value"),
        (b'{"model": "tiny"}', "application/json", 400, "missing_required_parameter"),
        (b"[" * 100_000, "application/json", 400, "invalid_json"),
        (b'{"model": "\\ud800", "messages": []}', "application/json", 400, "invalid_json"),
        (b'{"model": "\xff"}', "application/json", 400, "invalid_json"),
        (b'{"model": "tiny", "messages": [], "temperature": NaN}', "application/json", 400, "invalid_value"),
        (b"{}", "text/plain", 415, "unsupported_media_type"),
        (b"{}", "", 415, "unsupported_media_type"),
    ],
)
def test_what_is_no_request(client, content, kind, status, code):
    answer = client.post(CHAT, content=content, headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
