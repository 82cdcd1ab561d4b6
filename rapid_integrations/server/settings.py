"""The settings of a server. Imports neither torch nor a package of the extra `server`."""

from __future__ import annotations

import ipaddress
import re
from contextlib import suppress
from pathlib import Path

from pydantic import Field, field_validator

from rapid_integrations.config import Settings

LOOPBACK = ("127.0.0.1", "::1", "localhost")

MIB = 2**20

_HOST = re.compile(r"\*|[a-z0-9._-]+")
_ORIGIN = re.compile(r"null|[a-z][a-z0-9+.-]*://[^/?#@*\s]+")


class ServerSettings(Settings):
    """Limits, places and times of a server. Times are in seconds, sizes in bytes."""

    model_name: str | None = Field(
        default=None, description="the name that clients give as `model`; None takes the target's own"
    )
    files_dir: Path | None = Field(
        default=None, description="the folder of the uploaded documents; None takes `files` in $RAPID_HOME"
    )
    shared_files: bool = Field(
        default=False, description="whether other servers use this folder at the same time, as replicas do"
    )
    api_keys: Path | None = Field(default=None, description="the file of hashed API keys; None asks for no key")
    max_running: int = Field(default=8, ge=1, description="number of requests that the engine gets at once")
    max_waiting: int = Field(default=64, ge=0, description="number of requests that may wait; more are refused (429)")
    max_choices: int = Field(default=8, ge=1, description="largest number of answers to one request (n and prompts)")
    max_body_bytes: int = Field(default=32 * MIB, ge=1, description="maximum size of a request's body, without files")
    max_file_bytes: int = Field(default=64 * MIB, ge=1, description="maximum size of one uploaded document")
    max_files: int = Field(default=1000, ge=1, description="maximum number of kept documents")
    max_files_bytes: int = Field(default=4096 * MIB, ge=1, description="maximum size of all kept documents together")
    body_timeout_s: float = Field(default=60.0, gt=0, description="time within which a body has to arrive")
    request_timeout_s: float = Field(default=600.0, gt=0, description="time within which an answer has to be complete")
    read_timeout_s: float = Field(default=120.0, gt=0, description="time for the text of one uploaded document")
    shutdown_s: float = Field(default=30.0, ge=0, description="time that running answers have when the server stops")
    comment_s: float = Field(
        default=15.0, gt=0, description="interval of the comments that keep a silent stream of events open"
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=LOOPBACK, description='names by which clients may call the server; "*" allows every name'
    )
    allowed_origins: tuple[str, ...] = Field(
        default=(), description="origins of other web pages that may call the server (CORS); by default none"
    )

    @field_validator("files_dir", "api_keys")
    @classmethod
    def _of_home(cls, given: Path | None) -> Path | None:
        return None if given is None else given.expanduser()  # a shell leaves the ~ of --files-dir=~/files

    @field_validator("allowed_hosts")
    @classmethod
    def _names_only(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(_host, given))

    @field_validator("allowed_origins")
    @classmethod
    def _origins_only(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        origins = tuple(origin.lower() for origin in given)
        for origin in origins:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{origin!r} is no origin: give scheme, host and, if there is one, port of each page, such as "
                    "https://app.example.org or http://localhost:3000, without a path or a slash behind it"
                )
        return origins


def _host(given: str) -> str:
    """Return a name as it is compared with that of a request: in small letters, without brackets."""
    name = given.lower().removeprefix("[").removesuffix("]")
    with suppress(ValueError):
        return str(ipaddress.ip_address(name))
    if not _HOST.fullmatch(name):
        raise ValueError(f"{given!r} is no name of a host: give it alone, without scheme, port and path")
    return name
