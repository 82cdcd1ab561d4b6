"""One door to two apps in this process: who gets what, what is checked at the door, and what a lost replica does."""

import asyncio
import hashlib
import json

import httpx
import pytest

pytest.importorskip("starlette")

from rapid_integrations.server.failures import ApiError
from tests.toys.models import words
from tests.toys.server_app import HELLO


class InProcess:
    """Two apps, each with every second key; `lost` names those that end after so many messages."""

    def __init__(self, *apps):
        self.apps, self.lost, self.asked, self.ended = list(apps), {}, [], 0

    async def ask(self, key, scope, body):
        from rapid_integrations.server.ingress import ReplicaLost, run_app

        number = 0 if key is None else hashlib.sha256(key.encode()).digest()[0] % len(self.apps)
        self.asked.append((number, key, scope))
        number = next(place % len(self.apps) for place in range(number, number + 2) if self.lost.get(place % 2) != 0)
        left = self.lost.get(number, 10**9)
        try:
            async for messages in run_app(self.apps[number], scope, body):
                for message in messages:
                    if left == 0:
                        self.lost[number] = 0
                        raise ReplicaLost
                    left -= 1
                    yield [message]
        finally:
            self.ended += 1

    async def metrics(self):
        return {str(number): app.state.rapid.metrics.text() for number, app in enumerate(self.apps)}


@pytest.fixture
def served(app_of, tmp_path):
    """Return a function that makes a door with settings, its replicas and a client of it."""
    from rapid_integrations.server.ingress import create_ingress, settings_within
    from rapid_integrations.server.settings import ServerSettings

    def made(**settings):
        given = ServerSettings(files_dir=tmp_path / "files", model_name="tiny", **settings)
        within = settings_within(given).model_dump(exclude={"model_name"})
        replicas = InProcess(app_of(**within), app_of(**within))
        transport = httpx.ASGITransport(create_ingress(replicas, given), raise_app_exceptions=False)
        return replicas, httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60)

    return made


async def upload(client, text, name="a.txt", **more):
    answer = await client.post("/v1/files", files={"file": (name, text)}, data={"purpose": "assistants"}, **more)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def asked(client, question, **body):
    messages = [{"role": "user", "content": question}]
    return await client.post("/v1/chat/completions", json={"model": "tiny", "messages": messages, **body})


async def test_questions_meet_the_replica_that_reads_the_document(served):
    replicas, client = served()
    async with client:
        files = [await upload(client, words(seed, 40)) for seed in range(6)]
        for file in files:
            for question in ("Which?", "How many?"):
                answer = await asked(client, question, rapid={"documents": [{"file_id": file["id"]}]})
                assert answer.status_code == 200, answer.text
            assert (await client.get(f"/v1/files/{file['id']}/text")).status_code == 200
        assert {each["id"] for each in (await client.get("/v1/files")).json()["data"]} == {each["id"] for each in files}
        by_file = {file["id"]: {number for number, key, _ in replicas.asked if key == file["id"]} for file in files}
        assert all(len(numbers) == 1 for numbers in by_file.values())
        assert (await client.delete(f"/v1/files/{files[0]['id']}")).status_code == 200
        assert len((await client.get("/v1/files")).json()["data"]) == 5
    assert replicas.ended == len(replicas.asked)


async def test_the_door_checks_key_name_and_size(served, tmp_path):
    from rapid_integrations.server.keys import add_key

    key = add_key(tmp_path / "keys", "ann")
    replicas, client = served(api_keys=tmp_path / "keys", max_body_bytes=2000)
    sent = {"Authorization": f"Bearer {key}"}
    async with client:
        refused = await asked(client, "Why?")
        assert refused.status_code == 401 and refused.headers["x-request-id"]
        assert (await client.get("/v1/models", headers={**sent, "Host": "evil.example"})).status_code == 421
        assert (await client.get("/v1/models", headers={**sent, "Origin": "http://evil.example"})).status_code == 403
        large = await client.post("/v1/completions", json={"prompt": "x" * 3000}, headers=sent)
        assert large.status_code == 413 and replicas.asked == []
        client.headers.update(sent)
        assert (await client.get("/health")).json() == {"status": "ok"} and replicas.asked == []
        assert (await client.get("/v1/models", headers={"Origin": "http://localhost"})).status_code == 200
        ((_, _, scope),) = replicas.asked
        assert not {name for name, _ in scope["headers"]} & {b"authorization", b"origin"}
        assert scope["rapid.key"] == "ann"


async def test_no_client_chooses_the_id_of_a_file(served):
    replicas, client = served()
    async with client:
        wanted = "file-" + "0" * 32
        file = await upload(client, "text", headers={"rapid.file_id": wanted, "x-session-id": wanted})
        assert file["id"] != wanted and replicas.asked[0][1] == file["id"]


async def test_a_replica_that_is_lost_before_its_answer_is_replaced_by_the_next(served):
    replicas, client = served()
    async with client:
        for number in (0, 1):
            replicas.lost = {number: 0}
            for question in ("One?", "Two?", "Three?", "Four?"):
                assert (await asked(client, question)).status_code == 200
        text = words(3, 40)
        file = await upload(client, text)
        (home,) = {number for number, key, _ in replicas.asked if key == file["id"]}
        replicas.lost = {home: 0}
        answer = await asked(client, "Which?", rapid={"documents": [{"file_id": file["id"]}]})
        assert answer.status_code == 200, answer.text
        assert (await client.get(f"/v1/files/{file['id']}/text")).json()["text"] == text


async def test_a_stream_whose_replica_is_lost_says_so(served):
    replicas, client = served()
    replicas.lost = {0: 3, 1: 3}
    async with client:
        answer = await asked(client, "Why?", stream=True)
        last = [line for line in answer.text.split("\n\n") if line][-1]
        assert answer.status_code == 200 and json.loads(last.removeprefix("data: "))["error"]["code"] == "replica_lost"


async def test_no_replica_is_an_error_of_openais_form(served):
    replicas, client = served()

    async def none(*_):
        raise ApiError(503, "no replica is running. Ask again later", "no_replica", retry_s=5)
        yield

    replicas.ask = none
    async with client:
        answer = await asked(client, "Why?")
        assert answer.status_code == 503 and answer.json()["error"]["code"] == "no_replica"
        assert answer.headers["retry-after"] == "5"


async def test_metrics_have_the_replicas_names(served):
    replicas, client = served()
    async with client:
        for question in ("One?", "Two?", "Three?"):
            await asked(client, question)
        page = (await client.get("/metrics")).text
    answers = [line for line in page.split("\n") if line.startswith("rapid_requests_total{") and "chat" in line]
    assert sum(float(line.split()[-1]) for line in answers) == 3
    assert page.count("# TYPE rapid_requests_total") == 1 and 'replica="ingress"' in page


async def test_a_client_who_leaves_ends_the_request_in_its_replica(app_of):
    from rapid_integrations.server.ingress import run_app

    app = app_of()
    body = {"model": "tiny", "messages": HELLO, "max_tokens": 20_000, "stream": True, "logit_bias": {"257": -100}}
    sent = json.dumps(body).encode()
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/chat/completions",
        "raw_path": b"/v1/chat/completions",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), (b"host", b"localhost")],
        "client": ("127.0.0.1", 1),
    }
    messages = run_app(app, scope, sent)
    pieces = 0
    async for batch in messages:
        pieces += len(batch)
        if pieces > 5:
            break
    assert app.state.rapid.turns.running == 1
    await messages.aclose()
    assert app.state.rapid.turns.running == 0
    for _ in range(100):
        if not app.state.rapid.engine.running_requests:
            break
        await asyncio.sleep(0.02)
    assert app.state.rapid.engine.running_requests == 0
    assert b"rapid_cancelled_total 1.0" in app.state.rapid.metrics.text()
