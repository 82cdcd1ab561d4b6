"""Many clients at one server: none fails, none starves, and the memory does not grow.

RAPID_LOAD_S is the number of seconds (30 by default); the figures are printed.
"""

import os
import random
import statistics
import threading
import time

import psutil
import pytest

from rapid_integrations.config import SamplingParams
from rapid_integrations.server.settings import ServerSettings
from tests.toys.models import words
from tests.toys.served import client_of, events, running, tiny_engine, uploaded

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")

CLIENTS, DOCUMENTS = 32, 8
SECONDS = float(os.environ.get("RAPID_LOAD_S", "30"))
KEPT = 8 * 2**20  # bytes of finished caches; it is full soon, and the memory then has to stay level
NO_END = {"257": -100, "259": -100}


def body_of(random_, ids):
    return {
        "model": "tiny",
        "messages": [{"role": "user", "content": f"Which words are there, {random_.random()}?"}],
        "max_tokens": random_.choice((4, 16, 48)),
        "temperature": 1.0,
        "logit_bias": NO_END,
        "stream": True,
        "rapid": {"documents": [{"file_id": random_.choice(ids)}]},
    }


class Client(threading.Thread):
    """Asks one question after the other; leaves in the middle of every third answer."""

    def __init__(self, number, address, ids, until):
        super().__init__(daemon=True)
        self.random, self.address, self.ids, self.until = random.Random(number), address, ids, until
        self.answers, self.cancelled, self.tokens, self.first, self.failures = 0, 0, 0, [], []

    def run(self):
        with client_of(self.address) as client:
            while time.monotonic() < self.until:
                try:
                    self.ask(client)
                except Exception as error:
                    self.failures.append(repr(error))

    def ask(self, client):
        body = body_of(self.random, self.ids)
        leaves = self.random.random() < 1 / 3
        start = time.monotonic()
        with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            if answer.status_code != 200:
                self.failures.append((answer.status_code, answer.read().decode()[:200]))
                return
            text, seen = "", 0
            for piece in answer.iter_text():
                text += piece
                if seen == 0 and text.count('"delta"') > 1:
                    self.first.append(time.monotonic() - start)
                    seen = 1
                if leaves and seen:
                    self.cancelled += 1
                    return
        found, ended = events(text)
        if not ended or found[-1]["choices"][0]["finish_reason"] != "length":
            self.failures.append(text[-200:])
        self.answers += 1
        self.tokens += body["max_tokens"]


@pytest.mark.slow
def test_clients_by_the_dozen(tmp_path, capsys):
    from rapid_integrations.server.app import create_app

    with tiny_engine(sampling=SamplingParams(max_new_tokens=16), prefix_cache_bytes=KEPT) as engine:
        settings = ServerSettings(files_dir=tmp_path, model_name="tiny", max_running=8)
        with running(create_app(engine, settings)) as address, client_of(address) as client:
            ids = [uploaded(client, words(seed, 150 + 40 * seed))["id"] for seed in range(DOCUMENTS)]
            alone, alone_tokens, alone_seconds = in_turn(address, ids)
            until = time.monotonic() + SECONDS
            clients = [Client(number, address, ids, until) for number in range(CLIENTS)]
            for each in clients:
                each.start()
            process, memory, caches = psutil.Process(), [], []
            while time.monotonic() < until:
                time.sleep(max(0.0, min(SECONDS / 20, until - time.monotonic())))
                memory.append(process.memory_info().rss)
                caches.append(engine.kv_bytes)
            for each in clients:
                each.join(120)
            assert not any(each.is_alive() for each in clients)
            deadline = time.monotonic() + 60
            while client.get("/ready").json()["running"] and time.monotonic() < deadline:
                time.sleep(0.05)
            idle = client.get("/ready").json()
    answers = [each.answers + each.cancelled for each in clients]
    first = sorted(second for each in clients for second in each.first)
    tokens, left = sum(each.tokens for each in clients), sum(each.cancelled for each in clients)
    with capsys.disabled():
        print(
            f"\n{CLIENTS} clients, {SECONDS:g} s: {sum(answers)} answers ({left} left early), at "
            f"least {tokens / SECONDS:.0f} tokens/s; first token after {statistics.median(first):.2f} s (median), "
            f"{first[int(0.95 * len(first))]:.2f} s (95%); answers of a client: {min(answers)} to {max(answers)}; "
            f"memory {memory[len(memory) // 2] >> 20} MiB half-way, {memory[-1] >> 20} MiB at the end (KV caches at "
            f"most {max(caches) >> 20} MiB). In turn: {alone_tokens / alone_seconds:.0f} tokens/s, first token "
            f"after {alone:.2f} s"
        )
    assert [each.failures for each in clients if each.failures] == []
    assert idle["running"] == 0 and idle["waiting"] == 0
    assert left > sum(answers) / 6
    assert min(answers) >= statistics.mean(answers) / 4  # no client starves
    assert memory[-1] < 1.15 * memory[len(memory) // 2]


def in_turn(address, ids):
    """Ask such questions one after the other; return the median time to the first token, the tokens and the time."""
    single = Client(99, address, ids, time.monotonic() + min(10.0, SECONDS))
    start = time.monotonic()
    single.run()
    assert single.failures == []
    return statistics.median(single.first), single.tokens, time.monotonic() - start
