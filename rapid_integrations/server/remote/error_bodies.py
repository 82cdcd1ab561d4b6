"""Errors over HTTP: a server sends the class by name, and the client raises the same class with the same message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rapid_integrations import errors
from rapid_integrations.errors import RapidError, RemoteError, public_name

_BAD_REQUEST = (
    errors.ConfigurationError,
    errors.PromptError,
    errors.ContextOverflowError,
    errors.VocabularyMismatchError,
)
_LATER = (errors.EngineClosedError, errors.OutOfMemoryError)


def status_of(error: BaseException) -> int:
    """Return the HTTP status of an error."""
    if isinstance(error, _BAD_REQUEST):
        return 400
    return 503 if isinstance(error, _LATER) else 500


def body_of(error: BaseException) -> dict[str, Any]:
    """Return the body {"error": ...} that tells a client of an error, in OpenAI's form and with the class by name.

    The message of an error that is not of this package's tree stays here, as it may tell of the server's own affairs.
    """
    if not isinstance(error, RapidError):
        error = RemoteError(f"the server failed with {type(error).__name__}; its log says more", code="failed")
    kind = "invalid_request_error" if status_of(error) == 400 else "server_error"
    fields = {name: value for name, value in vars(error).items() if isinstance(value, (str, int, float, type(None)))}
    name = public_name(error)
    said: dict[str, Any] = {"message": str(error), "type": kind, "param": None, "code": error.code}
    return {"error": {**said, "rapid": {"class": name, "fields": fields}}}


def error_from(body: object, status: int, url: str) -> RapidError:
    """Return the error that a body tells of.

    Args:
        body: as JSON; anything, if the server is not ours.
        status: the HTTP status.
        url: for messages.
    """
    said = body.get("error") if isinstance(body, Mapping) else None
    message = said.get("message") if isinstance(said, Mapping) else said if isinstance(said, str) else None
    ours = said.get("rapid") if isinstance(said, Mapping) else None
    kind = getattr(errors, str(ours.get("class")), None) if isinstance(ours, Mapping) else None
    if isinstance(said, Mapping) and isinstance(ours, Mapping) and ours.get("class") in errors.__all__ and kind:
        found: RapidError
        if kind.__init__ is RapidError.__init__:
            found = kind(str(message))
        else:  # its constructor takes what the message was made of
            found = kind.__new__(kind)
            Exception.__init__(found, str(message))
        fields = ours.get("fields")
        for name, value in fields.items() if isinstance(fields, Mapping) else ():
            setattr(found, str(name), value)
        found.code = str(said.get("code") or kind.code)
        return found
    shown = f": {message}" if message else ""
    if status in (401, 403):
        return RemoteError(
            f"{url} refuses the API key (HTTP {status}){shown}. Give the right one: api_key=...", code="refused"
        )
    if status == 404:
        return RemoteError(
            f"{url} does not exist there (HTTP 404){shown}. The URL of a server ends before /rapid and /v1, as in "
            "http://127.0.0.1:8080",
            code="answer",
        )
    return RemoteError(f"{url} answered with HTTP {status}{shown}", code="refused" if status == 429 else "failed")
