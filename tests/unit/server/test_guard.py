"""Who may ask: names of the server, pages of other origins, keys."""

import pytest

from rapid_integrations.server.keys import add_key, remove_key
from tests.toys.served import client_of, running


def test_only_allowed_names_of_the_server_are_answered(client):
    for name in ("localhost", "127.0.0.1:80", "[::1]:8000"):
        assert client.get("/v1/models", headers={"Host": name}).status_code == 200
    for name in ("attacker.example", "localhost.attacker.example", "", "a" * 3000):
        refused = client.get("/v1/models", headers={"Host": name})
        assert refused.status_code == 421 and refused.json()["error"]["code"] == "host_not_allowed"
    assert client.get("/health", headers={"Host": "10.1.2.3"}).status_code == 200


def test_pages_of_other_origins_are_refused_and_told_nothing(client, address):
    refused = client.post(
        "/v1/files", files={"file": ("a.txt", b"text")}, headers={"Origin": "https://attacker.example"}
    )
    assert refused.status_code == 403 and refused.json()["error"]["type"] == "permission_error"
    assert "access-control-allow-origin" not in refused.headers
    for origin in ("null", "http://[", "http://127.0.0.1:1"):
        assert client.get("/v1/models", headers={"Origin": origin}).status_code == 403
    assert client.get("/v1/models", headers={"Origin": address}).status_code == 200


def test_an_allowed_origin_may_ask_first(app_of, tmp_path):
    key = add_key(tmp_path / "keys", "mine")
    with running(app_of(allowed_origins=("https://ours.example",), api_keys=tmp_path / "keys")) as address:
        with client_of(address, headers={"Origin": "https://ours.example"}) as client:
            asking = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
            allowed = client.options("/v1/chat/completions", headers=asking)
            assert allowed.status_code == 200
            assert allowed.headers["access-control-allow-origin"] == "https://ours.example"
            assert client.get("/v1/models").status_code == 401
            assert client.get("/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code == 200


def test_a_key_is_asked_for_and_may_be_taken_back(app_of, tmp_path):
    file = tmp_path / "keys"
    mine, other = add_key(file, "mine"), add_key(file, "other")
    with running(app_of(api_keys=file)) as address, client_of(address) as client:
        assert client.get("/health").status_code == client.get("/ready").status_code == 200
        for path in ("/v1/models", "/v1/files", "/metrics", "/nowhere"):
            refused = client.get(path)
            assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Bearer"
            assert refused.json()["error"]["code"] == "invalid_api_key"
        for wrong in (f"Basic {mine}", "Bearer", "Bearer wrong", f"Bearer {mine}x", f"Bearer {'a' * 2000}"):
            assert client.get("/v1/models", headers={"Authorization": wrong}).status_code == 401
        for key in (mine, other):
            assert client.get("/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code == 200
        remove_key(file, "mine")
        assert client.get("/v1/models", headers={"Authorization": f"Bearer {mine}"}).status_code == 401
        assert client.get("/v1/models", headers={"Authorization": f"Bearer {other}"}).status_code == 200


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_a_form_of_another_page_is_no_request(client, path):
    # A browser sends this type to any server without asking.
    refused = client.post(path, content=b'{"model": "tiny"}', headers={"Content-Type": "text/plain"})
    assert refused.status_code == 415
