"""The log and the headers of every answer."""

import logging

import pytest

from rapid_integrations.server.keys import add_key
from tests.toys.served import client_of, running, tiny_engine, uploaded

SECRET = "the vault opens at dawn"


@pytest.mark.parametrize("stream", [False, True])
def test_the_log_holds_no_text_and_no_key(app_of, tmp_path, caplog, stream):
    key = add_key(tmp_path / "keys", "ann")
    caplog.set_level(logging.DEBUG)
    with running(app_of(api_keys=tmp_path / "keys")) as address:
        with client_of(address, headers={"Authorization": f"Bearer {key}"}) as client:
            file = uploaded(client, f"{SECRET}. " * 20, f"{SECRET}.txt")
            body = {
                "model": "tiny",
                "stream": stream,
                "messages": [{"role": "user", "content": SECRET}],
                "rapid": {"documents": [{"file_id": file["id"]}]},
            }
            assert client.post("/v1/chat/completions", json=body, params={"q": SECRET}).status_code == 200
            assert client.post("/v1/chat/completions", json={**body, "temperature": SECRET}).status_code == 400
            client.get(f"/v1/{SECRET}")
            client.get("/v1/models", headers={"Authorization": f"Bearer {key[:-1]}"})
    ours = [record.getMessage() for record in caplog.records if record.name.startswith(("rapid", "uvicorn"))]
    lines = [record.getMessage() for record in caplog.records if record.name == "rapid.server.access"]
    assert any("ann POST /v1/chat/completions 200 " in line for line in lines)
    assert any(" - GET other 401 " in line or " - GET /v1/models 401 " in line for line in lines)
    assert not any(SECRET in line or key[10:-5] in line or file["id"] in line for line in ours)


def test_an_error_of_ours_is_logged_without_its_message_and_not_told(app_of, caplog, monkeypatch):
    with tiny_engine() as own, running(app_of(engine=own)) as address, client_of(address) as client:

        async def broken(prompt, **options):
            raise ValueError(f"cannot read {prompt}")

        monkeypatch.setattr(own, "astream", broken)
        body = {"model": "tiny", "messages": [{"role": "user", "content": SECRET}]}
        for stream in (False, True):
            answer = client.post("/v1/chat/completions", json={**body, "stream": stream})
            assert answer.status_code == 500 and answer.json()["error"]["type"] == "server_error"
            assert SECRET not in answer.text
    said = [record.getMessage() for record in caplog.records if record.name == "rapid.server"]
    assert any("ValueError" in line and "broken" in line for line in said)
    assert not any(SECRET in line for line in said)


def test_every_answer_has_the_headers_that_keep_a_browser_safe(client):
    seen = set()
    for path in ("/health", "/v1/models", "/nowhere", "/v1/files/x"):
        answer = client.get(path)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["content-security-policy"] == "default-src 'self'"
        assert "server" not in answer.headers
        seen.add(answer.headers["x-request-id"])
    assert len(seen) == 4
    assert client.put("/v1/models").status_code == 405
    assert client.get("/v1/nothing").json()["error"]["code"] == "unknown_url"
