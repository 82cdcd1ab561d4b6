"""Answers on their way: clients who leave, limits of time, a full house, and a server that stops."""

import asyncio
import json
import logging
import socket
import threading
import time

import pytest

from rapid_integrations import RapidEngine, RemoteError
from rapid_integrations.config import SamplingParams
from tests.toys.models import words
from tests.toys.served import client_of, events, running, tiny_engine, uploaded

LONG = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 20_000, "temperature": 1.0}
LONG["logit_bias"] = {"257": -100, "259": -100}  # the end tokens
SHORT = {**LONG, "max_tokens": 2}


@pytest.fixture(scope="module")
def engine():
    with tiny_engine(sampling=SamplingParams(max_new_tokens=12)) as made:
        yield made


def settle(check, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not check() and time.monotonic() < deadline:
        time.sleep(0.01)
    return check()


def sent(address, body):
    """Send a request on a socket of its own and leave the answer unread."""
    host, port = address.removeprefix("http://").split(":")
    opened = socket.create_connection((host, int(port)))
    data = json.dumps(body).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    opened.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    return opened


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_who_leaves_ends_the_request_within_a_pass(address, client, engine, stream):
    with sent(address, {**LONG, "stream": stream}):
        assert settle(lambda: engine.running_requests == 1)
    assert settle(lambda: engine.running_requests == 0)  # the answer itself would have taken far longer
    assert settle(lambda: 'route="/v1/chat/completions",status="499"' in client.get("/metrics").text)


def test_a_client_who_leaves_while_waiting_waits_no_more(app_of, engine):
    with running(app_of(max_running=1)) as address, client_of(address) as client:
        with sent(address, LONG):
            assert settle(lambda: client.get("/ready").json()["running"] == 1)
            with sent(address, LONG):
                assert settle(lambda: client.get("/ready").json()["waiting"] == 1)
            assert settle(lambda: client.get("/ready").json()["waiting"] == 0)
            assert client.get("/ready").json()["running"] == 1
        assert settle(lambda: engine.running_requests == 0)
        assert client.post("/v1/chat/completions", json=SHORT).status_code == 200


def test_at_most_so_many_wait(app_of, engine):
    with running(app_of(max_running=1, max_waiting=1)) as address, client_of(address) as client:
        with sent(address, LONG):
            assert settle(lambda: engine.running_requests == 1)
            # Until the engine begins it, it counts as one that waits there.
            assert settle(lambda: client.get("/ready").json() == {"status": "ready", "running": 1, "waiting": 0})
            with sent(address, LONG):
                assert settle(lambda: client.get("/ready").json() == {"status": "ready", "running": 1, "waiting": 1})
                refused = client.post("/v1/chat/completions", json={**SHORT, "stream": True})
            assert refused.status_code == 429 and int(refused.headers["retry-after"]) > 0
            assert refused.json()["error"]["type"] == "rate_limit_error"
        assert settle(lambda: engine.running_requests == 0)
        assert client.post("/v1/chat/completions", json=SHORT).status_code == 200


def test_remote_engines_wait_in_the_same_line(app_of, engine):
    remote = {"prompt": "Hello", "sampling": {"max_new_tokens": 3}}
    with running(app_of(max_running=1, max_waiting=0)) as address, client_of(address) as client:
        with sent(address, LONG):
            assert settle(lambda: client.get("/ready").json()["running"] == 1)
            for stream in (False, True):
                refused = client.post("/rapid/v1/complete", json={**remote, "stream": stream})
                assert refused.status_code == 429 and int(refused.headers["retry-after"]) > 0
            with RapidEngine.connect(address) as there, pytest.raises(RemoteError, match="requests wait already"):
                there.generate("Hello")
        assert settle(lambda: engine.running_requests == 0)
        assert client.post("/rapid/v1/complete", json=remote).json()["completion"]["usage"]["completion_tokens"] <= 3
        assert settle(lambda: client.get("/ready").json()["running"] == 0)


def test_remote_engines_are_told_that_the_server_stops(app_of):
    app = app_of()
    with running(app) as address, client_of(address) as client:
        app.state.rapid.deadlines.stop()
        assert client.post("/rapid/v1/complete", json={"prompt": "Hello"}).status_code == 503


def test_an_answer_has_a_time_limit(app_of, engine):
    with running(app_of(request_timeout_s=0.5)) as address, client_of(address) as client:
        whole = client.post("/v1/chat/completions", json=LONG)
        assert whole.status_code == 504 and whole.json()["error"]["code"] == "request_timeout"
        found, ended = events(client.post("/v1/chat/completions", json={**LONG, "stream": True}).text)
        assert found[-1]["error"]["code"] == "request_timeout" and not ended
        assert settle(lambda: engine.running_requests == 0)


def test_a_silent_stream_is_kept_open_by_comments(app_of, engine):
    with running(app_of(comment_s=0.001)) as address, client_of(address) as client:
        document = {"documents": [{"text": words(3, 800)}], "progress": True}
        body = {**SHORT, "stream": True, "rapid": document}
        text = client.post("/v1/chat/completions", json=body).text
        found, ended = events(text)
        assert ended and ": waiting\n\n" in text
        progress = [each["rapid"]["progress"] for each in found if "progress" in each.get("rapid", {})]
        assert {"prefill target", "prefill drafter"} <= {each["stage"] for each in progress}
        assert all(0 <= each["done"] <= each["total"] for each in progress)


def test_comments_keep_a_stream_open_that_waits_for_its_turn(app_of, engine):
    with running(app_of(max_running=1, comment_s=0.02)) as address, client_of(address) as client:
        with sent(address, LONG):
            assert settle(lambda: client.get("/ready").json()["running"] == 1)
            with client.stream("POST", "/v1/chat/completions", json={**SHORT, "stream": True}) as waiting:
                assert waiting.status_code == 200
                pieces = waiting.iter_bytes()  # it would close the stream if nothing held it
                assert next(pieces).startswith(b": waiting\n\n")
                assert client.get("/ready").json() == {"status": "ready", "running": 1, "waiting": 1}
            assert settle(lambda: client.get("/ready").json()["waiting"] == 0)
        assert settle(lambda: engine.running_requests == 0)


def test_what_fails_behind_a_comment_is_told_in_the_stream(app_of, engine):
    with running(app_of(max_running=1, comment_s=0.02, request_timeout_s=1)) as address, client_of(address) as client:
        with sent(address, LONG):
            assert settle(lambda: engine.running_requests == 1)
            answer = client.post("/v1/chat/completions", json={**SHORT, "stream": True, "max_tokens": 20_000})
            found, ended = events(answer.text)
            assert answer.status_code == 200 and answer.text.startswith(": waiting\n\n")
            assert found[-1]["error"]["code"] == "request_timeout" and not ended
        assert settle(lambda: engine.running_requests == 0)


def serving(app):
    from rapid_integrations.server.serving import server_of

    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = server_of(app, "127.0.0.1", listening.getsockname()[1])
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])), daemon=True)
    thread.start()
    assert settle(lambda: server.started)
    return server, thread, f"http://127.0.0.1:{listening.getsockname()[1]}"


def streamed(address, body, found):
    with client_of(address) as client:
        found.append(client.post("/v1/chat/completions", json=body).text)


def test_a_stopping_server_lets_answers_end_and_takes_no_new_ones(app_of, engine):
    server, thread, address = serving(app_of(shutdown_s=60))
    found = []
    asking = threading.Thread(target=streamed, args=(address, {**LONG, "max_tokens": 150, "stream": True}, found))
    asking.start()
    assert settle(lambda: engine.running_requests == 1)
    server.should_exit = True
    with client_of(address) as client:
        assert settle(lambda: client.get("/ready").status_code == 503)
        refused = client.post("/v1/chat/completions", json=SHORT)
        assert refused.status_code == 503 and refused.json()["error"]["code"] == "stopping"
    asking.join(30)
    thread.join(30)
    chunks, ended = events(found[0])
    assert ended and chunks[-1]["choices"][0]["finish_reason"] == "length" and not thread.is_alive()


def test_an_answer_that_does_not_end_in_time_is_told(app_of, engine):
    server, thread, address = serving(app_of(shutdown_s=0.2))
    found = []
    asking = threading.Thread(target=streamed, args=(address, {**LONG, "stream": True}, found))
    asking.start()
    assert settle(lambda: engine.running_requests == 1)
    server.should_exit = True
    asking.join(30)
    thread.join(30)
    chunks, ended = events(found[0])
    assert not ended and chunks[-1]["error"]["code"] == "stopping" and not thread.is_alive()
    assert settle(lambda: engine.running_requests == 0)


def test_a_second_ctrl_c_cuts_the_answers_without_a_traceback(app_of, engine, caplog):
    server, thread, address = serving(app_of(shutdown_s=1000))
    found = []
    asking = threading.Thread(target=streamed, args=(address, {**LONG, "stream": True}, found))
    asking.start()
    assert settle(lambda: engine.running_requests == 1)
    server.should_exit = server.force_exit = True  # what uvicorn sets
    thread.join(60)
    asking.join(60)
    assert not thread.is_alive() and not asking.is_alive()
    assert settle(lambda: engine.running_requests == 0)
    assert not [record.message for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_closed_engine_is_not_ready(app_of):
    with tiny_engine() as own:
        app = app_of(engine=own)
        with running(app) as address, client_of(address) as client:
            assert client.get("/ready").status_code == 200
            own.close()
            assert client.get("/ready").json() == {"status": "engine_closed"}
            assert client.post("/v1/chat/completions", json=SHORT).status_code == 503
            assert client.get("/health").status_code == 200


def test_what_has_been_read_is_counted(client):
    file = uploaded(client, words(5, 200))
    body = {**SHORT, "rapid": {"documents": [{"file_id": file["id"]}]}}
    before = _count(client, 'rapid_tokens_total{kind="cached_prompt"}')
    assert client.post("/v1/chat/completions", json=body).status_code == 200
    assert _count(client, 'rapid_tokens_total{kind="cached_prompt"}') > before + 1000
    assert _count(client, "rapid_files") >= 1 and _count(client, "rapid_kv_bytes") > 0


def _count(client, name):
    lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith(f"{name} ")]
    return float(lines[0].rsplit(" ", 1)[1]) if lines else 0.0
