"""The commands `rapid serve` and `rapid keys`."""

from __future__ import annotations

import logging
import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from rapid_integrations.adapters.progress_view import ProgressView
from rapid_integrations.cli.console import errors_taught, say, stderr
from rapid_integrations.cli.options import SamplingOptions, ServingOptions, SpeculationOptions
from rapid_integrations.errors import ConfigurationError, MissingExtraError
from rapid_integrations.server.keys import KeyFile, add_key, remove_key
from rapid_integrations.server.settings import LOOPBACK, MIB, ServerSettings

SERVER, LIMITS, ACCESS = "Server", "Limits", "Access"
_DEFAULTS = ServerSettings()
_EXTRA = ("starlette", "uvicorn", "python_multipart", "prometheus_client")

keys_app = typer.Typer(
    help="Manage the API keys of `rapid serve`. The file holds hashes; a key is shown once.", no_args_is_help=True
)
KeysFile = Annotated[Path, typer.Option("--file", help="File of the hashed keys.")]


def serve(
    models: ServingOptions,
    transfer: SpeculationOptions,
    sampling: SamplingOptions,
    host: Annotated[
        str, typer.Option(help="Address to listen at. Others than loopback need --api-keys.", rich_help_panel=SERVER)
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Port to listen at. 0 takes a free one.", min=0, max=65535, rich_help_panel=SERVER)
    ] = 8000,
    model_name: Annotated[
        str | None,
        typer.Option(help="Name by which clients ask for the model. Default: the target's.", rich_help_panel=SERVER),
    ] = None,
    files_dir: Annotated[
        Path | None,
        typer.Option(help="Folder of the uploaded documents. Default: files in $RAPID_HOME.", rich_help_panel=SERVER),
    ] = None,
    shared_files: Annotated[
        bool,
        typer.Option(
            "--shared-files",
            help="Other servers use --files-dir at the same time. Each reads what was uploaded to it.",
            rich_help_panel=SERVER,
        ),
    ] = False,
    kv_cache_mib: Annotated[
        int | None,
        typer.Option(
            help="Memory for the KV caches of running requests, in MiB. Default: half of what is free.",
            min=1,
            rich_help_panel=LIMITS,
        ),
    ] = None,
    prefix_cache_mib: Annotated[
        int | None,
        typer.Option(
            help="Memory for the KV caches of read documents, in MiB. Default: a quarter of what is free.",
            min=0,
            rich_help_panel=LIMITS,
        ),
    ] = None,
    max_running: Annotated[
        int, typer.Option(help="Requests that are answered at once.", min=1, rich_help_panel=LIMITS)
    ] = _DEFAULTS.max_running,
    max_waiting: Annotated[
        int, typer.Option(help="Requests that may wait. More are refused (429).", min=0, rich_help_panel=LIMITS)
    ] = _DEFAULTS.max_waiting,
    max_body_mib: Annotated[
        int, typer.Option(help="Maximum size of a request without files, in MiB.", min=1, rich_help_panel=LIMITS)
    ] = _DEFAULTS.max_body_bytes // MIB,
    max_file_mib: Annotated[
        int, typer.Option(help="Maximum size of an uploaded document, in MiB.", min=1, rich_help_panel=LIMITS)
    ] = _DEFAULTS.max_file_bytes // MIB,
    request_timeout: Annotated[
        float, typer.Option(help="Maximum time of an answer, in seconds.", min=0.1, rich_help_panel=LIMITS)
    ] = _DEFAULTS.request_timeout_s,
    shutdown_time: Annotated[
        float,
        typer.Option(help="Time that running answers have when it stops, in seconds.", min=0, rich_help_panel=LIMITS),
    ] = _DEFAULTS.shutdown_s,
    api_keys: Annotated[
        Path | None,
        typer.Option(help="File of hashed API keys (`rapid keys add`). Default: no key.", rich_help_panel=ACCESS),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            help='Name by which clients may call the server, besides loopback; "*" allows all. Repeat for more.',
            rich_help_panel=ACCESS,
        ),
    ] = None,
    allowed_origin: Annotated[
        list[str] | None,
        typer.Option(
            help="Origin of another web page that may call the server (CORS). Repeat for more.", rich_help_panel=ACCESS
        ),
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(help="Certificate file (PEM), to serve HTTPS.", rich_help_panel=ACCESS)
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(help="File of the certificate's key (PEM).", rich_help_panel=ACCESS)
    ] = None,
) -> None:
    """Serve the models over HTTP, with OpenAI's endpoints and a store of documents.

    The sampling and speculation options are the defaults of requests that do not set them. Ctrl-C or SIGTERM stops
    the server after the running answers.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # for the same reason as in `rapid ask`
    with errors_taught(), ExitStack() as at_end:
        try:
            from rapid_integrations.server.app import create_app, require_places
            from rapid_integrations.server.serving import listening, require_certificate, server_of
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] not in _EXTRA:
                raise
            raise MissingExtraError(feature="rapid serve", extra="server") from None
        if host not in LOOPBACK and api_keys is None:
            raise ConfigurationError(
                f"--host {host} lets other machines ask, and there are no API keys: give --api-keys FILE (made by "
                "`rapid keys add`), or listen at 127.0.0.1 behind a proxy that asks for passwords"
            )
        if (tls_certificate is None) != (tls_key is None):
            raise ConfigurationError("--tls-certificate and --tls-key belong together: give both or neither")
        tls = None if tls_certificate is None or tls_key is None else (str(tls_certificate), str(tls_key))
        if tls is not None:
            require_certificate(*tls)
        settings = ServerSettings(
            model_name=model_name,
            files_dir=files_dir,
            shared_files=shared_files,
            api_keys=api_keys,
            max_running=max_running,
            max_waiting=max_waiting,
            max_body_bytes=max_body_mib * MIB,
            max_file_bytes=max_file_mib * MIB,
            request_timeout_s=request_timeout,
            shutdown_s=shutdown_time,
            allowed_hosts=(*LOOPBACK, host, *(allowed_host or ())),
            allowed_origins=tuple(allowed_origin or ()),
        )
        params, speculation = sampling.params(), transfer.config()
        with listening(host, port) as opened:  # before the models are loaded: a taken port is known at once
            require_places(settings)
            with ProgressView(stderr) as progress:
                engine = models.load(
                    progress,
                    sampling=params,
                    speculation=speculation,
                    kv_cache_bytes="auto" if kv_cache_mib is None else kv_cache_mib * MIB,
                    prefix_cache_bytes="auto" if prefix_cache_mib is None else prefix_cache_mib * MIB,
                )
            at_end.callback(engine.close)
            logging.basicConfig(
                level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr
            )
            for noisy in ("httpx", "uvicorn.error"):
                logging.getLogger(noisy).setLevel(logging.WARNING)
            app = create_app(engine, settings)
            server = server_of(app, host, port, tls)
            address = f"[{host}]" if ":" in host else host
            scheme = "http" if tls is None else "https"
            signal.signal(signal.SIGTERM, _leave)
            at = f"{scheme}://{address}:{opened.getsockname()[1]}"
            say(f"{app.state.rapid.model_name} at {at}/v1, with a page to ask in at {at}/ (Ctrl-C stops)")
            server.run([opened])


def _leave(*_: object) -> None:
    """End the process in order, so that the engine is closed and what its caches write is written."""
    raise SystemExit(0)


@keys_app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="Name of the key, for the list and the log.")], file: KeysFile
) -> None:
    """Make a key and print it. Only its hash is kept."""
    with errors_taught():
        sys.stdout.write(f"{add_key(file, name)}\n")


@keys_app.command("list")
def list_keys(file: KeysFile) -> None:
    """Print the names of the keys."""
    with errors_taught():
        for name in KeyFile(file).names:
            sys.stdout.write(f"{name}\n")


@keys_app.command("remove")
def remove(name: Annotated[str, typer.Argument(help="Name of the key.")], file: KeysFile) -> None:
    """Remove a key. A running server refuses it from then on."""
    with errors_taught():
        remove_key(file, name)
