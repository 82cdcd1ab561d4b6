"""/v1/files: upload, list, read and delete documents."""

from __future__ import annotations

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from rapid_integrations.engine.async_stream import in_thread
from rapid_integrations.server.failures import ApiError
from rapid_integrations.server.state import ServerState

_MOST_FIELDS = 8
_FIELD_BYTES = 4096
_MOST_LISTED = 10_000

FILE_ID = "rapid.file_id"
"""Key in the scope of an upload whose id a router has chosen (`ingress.Ingress`); no client can set it."""


def routes(state: ServerState) -> list[Route]:
    """Return the routes of the documents."""
    files, reading = state.files, state.reading

    async def upload(request: Request) -> Response:
        if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
            raise ApiError(
                415,
                "a file is uploaded as multipart/form-data with the fields file and purpose",
                "unsupported_media_type",
            )
        async with request.form(max_files=1, max_fields=_MOST_FIELDS, max_part_size=_FIELD_BYTES) as form:
            given, purpose = form.get("file"), form.get("purpose")
            if not isinstance(given, UploadFile):
                raise ApiError(
                    400, "the form has no file in its field `file`", "missing_required_parameter", param="file"
                )
            size = given.size or 0
            if size > state.settings.max_file_bytes:
                raise ApiError(
                    413,
                    f"the file has {size:,} bytes, and the server takes {state.settings.max_file_bytes:,}: give the "
                    "part that you ask about",
                    "file_too_large",
                    param="file",
                )
            wanted = purpose if isinstance(purpose, str) else "assistants"
            file_id = request.scope.get(FILE_ID)
            stored = await in_thread(lambda: files.add(given.filename or "", wanted, given.file, size, file_id))
        reading.start(stored.id)
        return JSONResponse(stored.json)

    async def listed(request: Request) -> Response:
        query = request.query_params
        limit, after = _limit(query.get("limit")), query.get("after")
        found = files.all()
        if query.get("order") == "asc":
            found.reverse()
        if (purpose := query.get("purpose")) is not None:
            found = [file for file in found if file.purpose == purpose]
        if after is not None:
            places = [place for place, file in enumerate(found) if file.id == after]
            found = found[places[0] + 1 :] if places else []
        page = [file.json for file in found[:limit]]
        return JSONResponse(
            {
                "object": "list",
                "data": page,
                "first_id": page[0]["id"] if page else None,
                "last_id": page[-1]["id"] if page else None,
                "has_more": len(found) > limit,
            }
        )

    async def one(request: Request) -> Response:
        file = files.get(request.path_params["file_id"])
        reading.adopt(file)
        return JSONResponse(file.json)

    async def delete(request: Request) -> Response:
        file_id = request.path_params["file_id"]
        files.get(file_id)
        await reading.cancel(file_id)
        await in_thread(lambda: files.remove(file_id))
        return JSONResponse({"id": file_id, "object": "file", "deleted": True})

    async def content(request: Request) -> Response:
        file_id = request.path_params["file_id"]
        # A browser must neither show a stranger's page as the server's own nor guess that it is one.
        return FileResponse(
            files.content(file_id), media_type="application/octet-stream", filename=files.get(file_id).filename
        )

    async def text(request: Request) -> Response:
        document = await reading.text(request.path_params["file_id"])
        pages = [list(page) for page in document.pages] or None
        return JSONResponse({"text": document.text, "pages": pages})

    return [
        Route("/v1/files", upload, methods=["POST"]),
        Route("/v1/files", listed, methods=["GET"]),
        Route("/v1/files/{file_id}", one, methods=["GET"]),
        Route("/v1/files/{file_id}", delete, methods=["DELETE"]),
        Route("/v1/files/{file_id}/content", content, methods=["GET"]),
        Route("/v1/files/{file_id}/text", text, methods=["GET"]),
    ]


def _limit(given: str | None) -> int:
    if given is None:
        return _MOST_LISTED
    if not given.isascii() or not given.isdigit() or not 1 <= int(given[:9]) <= _MOST_LISTED:
        raise ApiError(
            400, f"limit={given[:40]!r} is no number from 1 to {_MOST_LISTED}", "invalid_value", param="limit"
        )
    return int(given[:9])
