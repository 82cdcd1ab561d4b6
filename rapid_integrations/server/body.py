"""Request bodies: JSON, checked against the model of the endpoint."""

from __future__ import annotations

import difflib
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from rapid_integrations.server.failures import ApiError

T = TypeVar("T", bound=BaseModel)


async def parsed(request: Request, model: type[T]) -> T:
    """Return the body of a request.

    Raises:
        ApiError: the body is no JSON (400, 415), or a field is unknown or invalid (400).
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        # A web page of another origin can send other types without asking the browser's permission.
        raise ApiError(
            415,
            f"the body has the content type {kind[:60]!r}: send JSON with Content-Type: application/json",
            "unsupported_media_type",
        )
    try:
        return model.model_validate_json(await request.body())
    except ValidationError as error:
        raise _failure(model, error) from None


def _failure(model: type[BaseModel], error: ValidationError) -> ApiError:
    found = error.errors(include_url=False, include_input=False, include_context=False)
    unknown = next((each for each in found if each["type"] == "extra_forbidden"), None)
    first = unknown or found[0]
    place = ".".join(str(part) for part in first["loc"][:6])[:200]
    if first["type"] == "json_invalid":
        return ApiError(400, f"the body is not valid JSON: {first['msg']}", "invalid_json")
    if unknown is not None:
        near = difflib.get_close_matches(place, model.model_fields, n=1, cutoff=0.7)
        hint = f". Did you mean {near[0]!r}?" if near else ""
        return ApiError(400, f"Unrecognized request argument supplied: {place}{hint}", "unknown_parameter", param=place)
    code = "missing_required_parameter" if first["type"] == "missing" else "invalid_value"
    return ApiError(400, f"{place or 'the body'}: {first['msg']}", code, param=place or None)
