"""Failures as OpenAI's API reports them, and the status of each error of the package's tree."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse

from rapid_integrations.errors import (
    ConfigurationError,
    ContextOverflowError,
    EngineClosedError,
    IncompleteOutputError,
    MissingExtraError,
    OutOfMemoryError,
    PromptError,
    RapidError,
    public_name,
)

RETRY_S = 5  # seconds after which a refused client may ask again

_STATUS: tuple[tuple[type[RapidError], int], ...] = (
    (ConfigurationError, 400),
    (PromptError, 400),
    (ContextOverflowError, 400),
    (IncompleteOutputError, 422),
    (MissingExtraError, 501),
    (EngineClosedError, 503),
)
_TYPES = {401: "invalid_request_error", 403: "permission_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """A request fails with an HTTP status.

    Args:
        status: the HTTP status.
        message: what was given, the rule and the way out.
        code: what went wrong, for programs.
        param: the field of the request that is wrong.
        rapid: the class and code of the package's own error.
        retry_s: seconds after which the client may ask again.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        *,
        param: str | None = None,
        rapid: dict[str, str] | None = None,
        retry_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.rapid, self.retry_s = rapid, retry_s

    @property
    def body(self) -> dict[str, Any]:
        """The failure as JSON."""
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        error: dict[str, Any] = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        if self.rapid is not None:
            error["rapid"] = self.rapid
        return {"error": error}

    def response(self) -> JSONResponse:
        """Return the failure as a response."""
        headers = {} if self.retry_s is None else {"Retry-After": str(self.retry_s)}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(self.body, self.status, headers)


def api_error(error: BaseException) -> ApiError:
    """Return the failure that a client is told for an error. What is not of the package's tree is not described."""
    if isinstance(error, ApiError):
        return error
    if not isinstance(error, RapidError):
        return ApiError(500, "the server failed. Its log says why; the request may be tried again", "internal_error")
    rapid = {"class": public_name(error), "code": error.code}
    # OpenAI's clients look for this code in order to shorten a conversation.
    code = "context_length_exceeded" if isinstance(error, ContextOverflowError) else error.code
    retry_s = None
    if isinstance(error, OutOfMemoryError):
        never_fits = error.code == "out_of_memory.kv_budget"
        status, retry_s = (413, None) if never_fits else (503, RETRY_S)
    else:
        status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    return ApiError(status, str(error), code, rapid=rapid, retry_s=retry_s)
