"""Errors cross the wire with their class, message and attributes."""

import json

import pytest

from rapid_integrations import errors
from rapid_integrations.server.remote.error_bodies import body_of, error_from, status_of

RAISED = [
    (errors.ConfigurationError("no", code="no_chat_template"), 400),
    (errors.PromptError("empty", code="empty"), 400),
    (errors.ContextOverflowError(model="m", prompt_tokens=9, new_tokens=2, context_window=10), 400),
    (errors.DocumentError("a.pdf", "is damaged"), 400),
    (errors.HostPartError("the embedder failed"), 500),
    (errors.OutOfMemoryError("full", code="kv_budget"), 503),
    (errors.MissingExtraError(feature="A schema", extra="structured"), 500),
    (errors.EngineClosedError("the server"), 503),
    (errors.NotANumberError("nan"), 500),
    (errors.RapidError("any"), 500),
]


@pytest.mark.parametrize(("raised", "status"), RAISED, ids=lambda value: type(value).__name__)
def test_the_same_error_is_raised_elsewhere(raised, status):
    assert status_of(raised) == status
    found = error_from(json.loads(json.dumps(body_of(raised))), status, "http://a")
    assert type(found) is type(raised) and str(found) == str(raised) and found.code == raised.code
    for name, value in vars(raised).items():
        assert getattr(found, name) == value


def test_what_is_not_of_the_tree_stays_on_the_server():
    body = body_of(KeyError("/home/me/secret"))
    assert "secret" not in json.dumps(body) and "KeyError" in body["error"]["message"]
    assert type(error_from(body, 500, "http://a")) is errors.RemoteError


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (None, 500, "remote.failed"),
        ({"error": "text"}, 429, "remote.refused"),
        ({"error": {"message": "who?"}}, 401, "remote.refused"),
        ({"detail": "Not Found"}, 404, "remote.answer"),
        ({"error": {"message": "a", "rapid": {"class": "SystemExit", "fields": {}}}}, 500, "remote.failed"),
        ({"error": {"message": "a", "rapid": {"class": "Any"}}}, 500, "remote.failed"),
        ({"error": {"message": "a", "rapid": {"class": 7}}}, 502, "remote.failed"),
        ([1], 503, "remote.failed"),
    ],
    ids=repr,
)
def test_any_other_body(body, status, code):
    found = error_from(body, status, "http://a/path")
    assert type(found) is errors.RemoteError and found.code == code and "http://a/path" in str(found)
    assert isinstance(found, ConnectionError)
