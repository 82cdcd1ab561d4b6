"""Two engines on a real Ray, on processors: who reads what, what a killed replica costs, and a rolling restart.

Needs `ray[serve]`. RAPID_RAY_MODEL names another model than a tiny random one.
"""

import os
import socket
import threading
import time

import httpx
import psutil
import pytest

from tests.toys.model_folder import original  # noqa: F401
from tests.toys.models import words
from tests.toys.ray_cluster import cluster

pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.process]

DOCUMENTS, QUESTIONS = 6, 3
TEXTS = [words(seed, 200) for seed in range(DOCUMENTS)]


@pytest.fixture(scope="module")
def model(original):  # noqa: F811
    return os.environ.get("RAPID_RAY_MODEL") or str(original)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with cluster(port, tmp_path_factory.mktemp("ray") / "log") as made:
        yield made


@pytest.fixture
def deployed(running, model, tmp_path):
    """Return a function that deploys two replicas and returns their arguments."""

    def made(**more):
        arguments = {
            "target": model,
            "models": {"prefix_cache_bytes": 2**28, "kv_cache_bytes": 2**28},
            "sampling": {"max_new_tokens": 8},
            "compression": {"chunk_tokens": 64, "min_tokens": 256},
            "server": {"files_dir": str(tmp_path / "files"), "model_name": "tiny"},
            "replicas": 2,
            **more,
        }
        running.deploy(**arguments)
        return arguments

    return made


class Asked:
    """What was answered: which replica answered about which document, and which documents were read."""

    def __init__(self, address):
        self._address = address
        self.readings, self.replicas = [], {}

    def ask(self, number, question, document):
        body = {
            "model": "tiny",
            "messages": [{"role": "user", "content": question}],
            "rapid": {"documents": [document]},
        }
        answer = self.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        usage = answer.json()["usage"]
        if usage["prompt_tokens_details"]["cached_tokens"] < usage["prompt_tokens"] / 2:
            self.readings.append(number)
        self.replicas.setdefault(number, []).append(answer.headers["x-rapid-replica"])

    def ask_all(self, documents, questions=QUESTIONS):
        for question in range(questions):
            for number, document in enumerate(documents):
                self.ask(number, f"Which word is number {question} of {len(self.replicas)}?", document)

    def get(self, path):
        return httpx.get(self._address + path, timeout=120)

    def post(self, path, **body):
        return httpx.post(self._address + path, timeout=120, **body)


def test_a_document_is_read_once_and_a_killed_replica_costs_its_documents_alone(running, deployed):
    deployed()
    asked, inline = Asked(running.address), [{"text": text} for text in TEXTS]
    asked.ask_all(inline)
    assert sorted(asked.readings) == list(range(DOCUMENTS))  # N questions on D documents: D readings
    assert all(len(set(replicas)) == 1 for replicas in asked.replicas.values())
    homes = {number: replicas[0] for number, replicas in asked.replicas.items()}
    assert len(set(homes.values())) == 2

    there = {process.pid for process in running.replicas()}
    psutil.Process(min(there)).kill()
    after = Asked(running.address)
    after.ask_all(inline, 1)  # answers go on at once
    lost = set(homes.values()) - {each for replicas in after.replicas.values() for each in replicas}
    moved = {number for number, home in homes.items() if after.replicas[number][0] != home}
    assert len(lost) == 1 and set(after.readings) == moved == {n for n, home in homes.items() if home in lost}

    deadline = time.monotonic() + 120
    while len({process.pid for process in running.replicas()} - there) < 1 and time.monotonic() < deadline:
        time.sleep(0.5)
    assert len({process.pid for process in running.replicas()} - there) == 1  # another one has been started


def test_uploads_work_over_replicas_and_a_shared_cache_spares_what_moves(running, deployed, tmp_path):
    deployed(prefix_cache_dir=str(tmp_path / "prefixes"))
    asked = Asked(running.address)
    files = []
    for number, text in enumerate(TEXTS):
        given = asked.post("/v1/files", files={"file": (f"{number}.txt", text)}, data={"purpose": "assistants"})
        assert given.status_code == 200, given.text
        files.append(given.json()["id"])
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        listed = asked.get("/v1/files").json()["data"]
        if all(each["rapid"]["read"] for each in listed):
            break
        time.sleep(0.2)
    assert len(listed) == DOCUMENTS and all(each["rapid"]["read"] for each in listed), listed
    documents = [{"file_id": file_id} for file_id in files]
    asked.ask_all(documents)
    assert asked.readings == []  # read ahead, each by the replica that is then asked
    assert all(len(set(replicas)) == 1 for replicas in asked.replicas.values())

    written = 0
    while (size := sum(path.stat().st_size for path in (tmp_path / "prefixes").rglob("*"))) != written:
        written = size
        time.sleep(3)  # they are written in the background
    psutil.Process(min(process.pid for process in running.replicas())).kill()
    after = Asked(running.address)
    after.ask_all(documents, 2)
    assert after.readings == []  # what the dead one had read is on disk
    assert asked.get(f"/v1/files/{files[0]}/text").json()["text"] == TEXTS[0]


def test_answers_go_on_during_a_rolling_restart(running, deployed):
    arguments = deployed()
    failed, answers, stop = [], [], threading.Event()

    def ask_on(number):
        asked = Asked(running.address)
        while not stop.is_set():
            try:
                asked.ask(number, f"Which word, {len(answers)}?", {"text": TEXTS[number]})
                answers.append(asked.replicas[number][-1])
            except Exception as error:
                failed.append(repr(error))

    threads = [threading.Thread(target=ask_on, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    while len(answers) < 6 and not failed:
        time.sleep(0.1)
    before = set(answers)
    running.deploy(**{**arguments, "sampling": {"max_new_tokens": 4}})
    done = len(answers)
    deadline = time.monotonic() + 60
    while len(answers) < done + 6 and not failed and time.monotonic() < deadline:
        time.sleep(0.1)
    stop.set()
    for thread in threads:
        thread.join(120)
    assert failed == [] and set(answers[done + 3 :]).isdisjoint(before)
    answer = Asked(running.address).post(
        "/v1/chat/completions",
        json={
            "model": "tiny",
            "messages": [{"role": "user", "content": "Why?"}],
            "logit_bias": {"257": -100, "259": -100},
        },
    )
    assert answer.json()["usage"]["completion_tokens"] == 4
