"""A server over a tiny random model, on loopback, in a thread of the test's process."""

import asyncio
import contextlib
import socket
import threading
import time

import httpx

from rapid_integrations.config import CompressionConfig, SamplingParams
from tests.toys.embedder import HashEmbedder
from tests.toys.light_model import light_engine
from tests.toys.models import byte_tokenizer

SMALL = {"chunk_tokens": 64, "min_tokens": 256}


def tiny_engine(**settings):
    """Return an engine whose byte-level model writes nonsense, over a window of so many tokens."""
    tokenizer, window = settings.pop("tokenizer", None) or byte_tokenizer(), settings.pop("window", 32768)
    return light_engine(
        tokenizer=tokenizer,
        config={"max_position_embeddings": window},
        **{
            "embedder": HashEmbedder(),
            "sampling": SamplingParams(max_new_tokens=12),
            "compression": CompressionConfig(**SMALL),
            "kv_cache_bytes": 512 * 2**20,
            "prefix_cache_bytes": 256 * 2**20,
            **settings,
        },
    )


@contextlib.contextmanager
def running(app):
    """Run an app as `rapid serve` does on a free port of loopback; yield its address."""
    from rapid_integrations.server.serving import server_of

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = server_of(app, "127.0.0.1", listening.getsockname()[1])
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])), daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        try:
            deadline = time.monotonic() + 60
            while not server.started and time.monotonic() < deadline:
                time.sleep(0.01)
            assert server.started
            yield address
        finally:
            server.should_exit = True
            thread.join(60)
            assert not thread.is_alive()


def events(text):
    """Return the JSON of the events of a stream, and whether it ended as streams should."""
    import json

    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"], lines[-1:] == ["[DONE]"]


def uploaded(client, text, name="report.txt", wait=True):
    """Upload a document and wait until it has been read; return the file."""
    given = client.post("/v1/files", files={"file": (name, text)}, data={"purpose": "assistants"})
    assert given.status_code == 200, given.text
    file = given.json()
    deadline = time.monotonic() + 120
    while wait and (file["status"] == "uploaded" or file["rapid"]["progress"]) and time.monotonic() < deadline:
        time.sleep(0.02)
        file = client.get(f"/v1/files/{file['id']}").json()
    return file


def client_of(address, **options):
    """Return an HTTP client of a server."""
    return httpx.Client(base_url=address, timeout=300, **options)
