"""Two servers behind vllm-router: the requests of one session meet one server. Needs `pip install vllm-router`."""

import contextlib
import socket
import subprocess
import sys
import time

import httpx
import pytest

from rapid_integrations.server.settings import ServerSettings
from tests.toys.models import words
from tests.toys.served import events, running, tiny_engine

pytest.importorskip("vllm_router")
pytestmark = [pytest.mark.slow, pytest.mark.process]

SESSIONS, QUESTIONS = 6, 3


@contextlib.contextmanager
def routed(log, *workers):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "vllm_router.launch_router", "--host", "127.0.0.1", "--port", port]
    command += ["--policy", "consistent_hash", "--worker-urls", *workers]
    with open(log, "w") as messages:
        process = subprocess.Popen(command, stdout=messages, stderr=messages)
        try:
            address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 60
            while True:
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-2000:]
                with contextlib.suppress(httpx.TransportError):
                    if httpx.get(f"{address}/health").status_code == 200:
                        break
                time.sleep(0.2)
            yield address
        finally:
            process.terminate()
            process.wait(30)


def test_a_session_meets_one_server(tmp_path):
    from rapid_integrations.server.app import create_app

    with contextlib.ExitStack() as stack:
        apps = []
        for number in range(2):
            engine = stack.enter_context(tiny_engine())
            apps.append(create_app(engine, ServerSettings(files_dir=tmp_path / str(number), model_name="tiny")))
        addresses = [stack.enter_context(running(app)) for app in apps]
        address = stack.enter_context(routed(tmp_path / "log", *addresses))
        client = stack.enter_context(httpx.Client(base_url=address, timeout=60))
        readings, homes = [], []
        for question in range(QUESTIONS):
            for session in range(SESSIONS):
                before = [app.state.rapid.metrics.text() for app in apps]
                body = {
                    "model": "tiny",
                    "messages": [{"role": "user", "content": f"Which word is number {question}?"}],
                    "rapid": {"documents": [{"text": words(session, 100)}]},
                }
                answer = client.post("/v1/chat/completions", json=body, headers={"X-Session-ID": f"document {session}"})
                assert answer.status_code == 200, answer.text
                usage = answer.json()["usage"]
                if usage["prompt_tokens_details"]["cached_tokens"] < usage["prompt_tokens"] / 2:
                    readings.append(session)
                after = [app.state.rapid.metrics.text() for app in apps]
                homes.append(next(place for place in (0, 1) if before[place] != after[place]))
        assert sorted(readings) == list(range(SESSIONS))  # each document once, by one of the two
        assert [homes[:SESSIONS]] * QUESTIONS == [homes[n : n + SESSIONS] for n in range(0, len(homes), SESSIONS)]
        streamed = {"model": "tiny", "stream": True, "messages": [{"role": "user", "content": "Why?"}]}
        assert events(client.post("/v1/chat/completions", json=streamed).text)[1]
