"""The page at `/`: plain HTML, CSS and JavaScript modules, as they lie in this folder. There is no build step.

It knows the server by the same endpoints as every other client. `main.js` puts its parts together.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rapid_integrations.server.failures import ApiError

_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    "Cache-Control": "no-cache",  # it is asked for again, and answered with 304: an update shows at once
    # Nothing inline and nothing foreign. With trusted types, not even the page's own script can write HTML: names and
    # texts of documents become text nodes, and nothing else.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


def routes() -> list[Route]:
    """Return the routes of the page and of its files. They need no API key; the page asks for it."""

    async def page(request: Request) -> Response:
        return _answer(request, "index.html")

    async def file(request: Request) -> Response:
        return _answer(request, request.path_params["name"])

    return [Route("/", page, methods=["GET"]), Route("/page/{name}", file, methods=["GET"])]


def _answer(request: Request, name: str) -> Response:
    files = _files()
    if name not in files:
        raise ApiError(404, "the page has no such file", "unknown_url")
    kind, content, tag = files[name]
    headers = {**_HEADERS, "ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=kind, headers=headers)


@cache
def _files() -> dict[str, tuple[str, bytes, str]]:
    """Return the content type, the bytes and the tag of each file. No request names a path on the disk."""
    found = {}
    for path in Path(__file__).parent.iterdir():
        if (kind := _KINDS.get(path.suffix)) is not None:
            content = path.read_bytes()
            found[path.name] = (kind, content, f'"{hashlib.sha256(content).hexdigest()[:32]}"')
    return found
