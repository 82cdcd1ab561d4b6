"""Who may ask: names of the server, pages of other origins, keys."""

import pytest

from rapid_integrations.errors import ConfigurationError
from rapid_integrations.server.keys import add_key, remove_key
from rapid_integrations.server.settings import ServerSettings
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


def test_a_page_of_an_allowed_origin_sees_why_it_is_refused(app_of, tmp_path):
    key = {"Authorization": f"Bearer {add_key(tmp_path / 'keys', 'mine')}"}
    settings = {"allowed_origins": ("https://ours.example",), "api_keys": tmp_path / "keys", "max_body_bytes": 1000}
    with running(app_of(**settings)) as address:
        with client_of(address, headers={"Origin": "https://ours.example"}) as client:
            json = {**key, "Content-Type": "application/json"}
            for status, answer in (
                (401, client.get("/v1/models")),
                (404, client.get("/v1/nowhere", headers=key)),
                (413, client.post("/v1/chat/completions", content=b" " * 2000, headers=json)),
                (400, client.post("/v1/chat/completions", content=b"{}", headers=json)),
            ):
                assert answer.status_code == status
                assert answer.headers["access-control-allow-origin"] == "https://ours.example"
                assert "Retry-After" in answer.headers["access-control-expose-headers"]
                assert answer.headers["x-request-id"] and len(answer.headers.get_list("x-request-id")) == 1
            stranger = client.get("/v1/models", headers={**key, "Origin": "https://attacker.example"})
            assert stranger.status_code == 403 and "access-control-allow-origin" not in stranger.headers


@pytest.mark.parametrize("origin", ["https://ours.example/", "ours.example", "*", "https://*.example", "https://a/b"])
def test_an_origin_that_no_browser_sends_is_refused_at_the_start(origin):
    with pytest.raises(ConfigurationError, match="no origin: give scheme, host"):
        ServerSettings(allowed_origins=(origin,))


@pytest.mark.parametrize("host", ["https://ours.example", "ours.example:8000", "ours.example/", ""])
def test_a_host_that_never_matches_is_refused_at_the_start(host):
    with pytest.raises(ConfigurationError, match="no name of a host"):
        ServerSettings(allowed_hosts=(host,))


def test_names_are_compared_without_regard_to_capitals(app_of):
    settings = {"allowed_hosts": ("Ours.Example", "[::1]"), "allowed_origins": ("https://Ours.Example",)}
    with running(app_of(**settings)) as address, client_of(address) as client:
        for headers in ({"Host": "ours.EXAMPLE:80", "Origin": "https://ours.example"}, {"Host": "[::1]:80"}):
            assert client.get("/v1/models", headers=headers).status_code == 200


def test_a_file_of_keys_that_was_damaged_lets_nobody_in_and_blames_no_client(app_of, tmp_path, caplog):
    file = tmp_path / "keys"
    key = {"Authorization": f"Bearer {add_key(file, 'mine')}"}
    whole = file.read_text()
    with running(app_of(api_keys=file)) as address, client_of(address) as client:
        file.write_text(whole + "half a li")
        refused = client.get("/v1/models", headers=key)
        assert refused.status_code == 503 and refused.headers["retry-after"]
        assert "line 2" not in refused.text and "line 2" in caplog.text
        file.write_text(whole)
        assert client.get("/v1/models", headers=key).status_code == 200


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
