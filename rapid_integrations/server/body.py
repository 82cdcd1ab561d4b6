"""Request bodies: JSON, checked against the model of the endpoint."""

from __future__ import annotations

import difflib
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, from_json
from starlette.requests import Request

from rapid_integrations.server.failures import ApiError

_CONSIDERED = 16  # faults of a body, of which one is told

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
    content = await request.body()
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        raise _failure(model, error, content) from None


def _failure(model: type[BaseModel], error: ValidationError, content: bytes) -> ApiError:
    found = error.errors(include_url=False, include_input=False, include_context=False)
    if found[0]["type"] == "json_invalid":
        first = found[0]
        return ApiError(400, f"the body is not valid JSON: {first['msg']}", "invalid_json")
    unknown = next((each for each in found if each["type"] == "extra_forbidden"), None)
    body = from_json(content)
    # Of the alternatives of a type, the one that went furthest is what was meant.
    first = unknown or max(found[:_CONSIDERED], key=lambda each: len(_place(body, each)))
    place = ".".join(_place(body, first)[:6])[:200]
    if unknown is not None:
        near = difflib.get_close_matches(place, model.model_fields, n=1, cutoff=0.7) if "." not in place else []
        hint = f". Did you mean {near[0]!r}?" if near else ""
        return ApiError(400, f"Unrecognized request argument supplied: {place}{hint}", "unknown_parameter", param=place)
    code = "missing_required_parameter" if first["type"] == "missing" else "invalid_value"
    return ApiError(400, f"{place or 'the body'}: {first['msg']}", code, param=place or None)


def _place(given: Any, fault: ErrorDetails) -> list[str]:
    """Return where in the body a fault is. pydantic's path also names the alternatives of a type; they are left out."""
    loc, parts = fault["loc"], list[str]()
    for number, part in enumerate(loc[:12]):
        if isinstance(given, dict) and part in given:
            given = given[part]
        elif isinstance(given, list) and isinstance(part, int) and part < len(given):
            given = given[part]
        elif number < len(loc) - 1 or fault["type"] != "missing":
            continue  # an alternative
        parts.append(str(part))
    return parts
