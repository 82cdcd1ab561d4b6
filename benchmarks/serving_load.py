"""Many clients at one server: failures, memory, waiting, throughput, beside the same requests in turn.

    python benchmarks/serving_load.py run --server rapid --model MODEL --minutes 10 --out rapid.json
    python benchmarks/serving_load.py run --server llama.cpp --model MODEL.gguf --minutes 3 --out llama.json
    python benchmarks/serving_load.py show rapid.json llama.json --picture load.png

`run` starts the server: `rapid serve`, or llama.cpp's from the package xllamacpp. Options behind `--` go to the former.
Each client asks one question after another about one of eight documents, which are parts of the handbook. Answers have
16, 48 or 96 tokens at most, and a third of them are left in the middle. Both servers get the same bodies: the document
stands in the message. First, one client asks such questions in turn, after every document has been read once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

HANDBOOK = Path(__file__).parent.parent / "examples" / "handbook.md"
DOCUMENTS = 8
QUESTIONS = (
    "How long is the probation period?",
    "Who has to be told?",
    "What has to be written down?",
    "Which deadline is named first?",
    "What is not allowed?",
    "Who decides?",
)
LENGTHS = (16, 48, 96)  # tokens
LEFT = 1 / 3  # share of the answers whose client leaves
IN_TURN_S = 60.0
SAMPLES = 120  # of the memory


@dataclass
class Asked:
    """A request: times in seconds since the beginning of its phase."""

    client: int
    start: float
    first: float | None = None
    end: float = 0.0
    tokens: int = 0
    left: bool = False
    failure: str | None = None


@dataclass
class Run:
    """What was measured.

    Attributes:
        in_turn, together: the requests of both phases.
        memory: (seconds, bytes) of the server during the second phase.
        processor: processor seconds of the server in each phase.
        load: the machine's load average before and after.
    """

    server: str
    model: str
    clients: int
    in_turn: list[Asked] = field(default_factory=list)
    together: list[Asked] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)
    seconds: tuple[float, float] = (0.0, 0.0)
    processor: tuple[float, float] = (0.0, 0.0)
    load: tuple[float, float] = (0.0, 0.0)


def documents() -> list[str]:
    """Return parts of the handbook of 1,500 to 5,000 characters, which begin at different sections."""
    text = HANDBOOK.read_text()
    starts = [text.index("\n", at * len(text) // (DOCUMENTS + 1)) + 1 for at in range(DOCUMENTS)]
    return [text[start : start + 1500 + 500 * number].strip() for number, start in enumerate(starts)]


def body(draw: random.Random, texts: Sequence[str], number: int) -> dict[str, Any]:
    """Return a request about one of the documents."""
    question = f"{draw.choice(QUESTIONS)} (question {number})"
    return {
        "model": "model",
        "messages": [{"role": "user", "content": f"{draw.choice(texts)}\n\nQuestion: {question}"}],
        "max_tokens": draw.choice(LENGTHS),
        "temperature": 0.0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def ask(client: httpx.AsyncClient, sent: dict[str, Any], leaves_after: int | None, done: Asked, now: Any) -> None:
    """Ask, and fill in what happened. A client who leaves does so after so many pieces."""
    pieces = 0
    try:
        async with client.stream("POST", "/v1/chat/completions", json=sent) as answer:
            if answer.status_code != 200:
                done.failure = f"{answer.status_code} {(await answer.aread())[:200]!r}"
                return
            ended = False
            async for line in answer.aiter_lines():
                if not line.startswith("data: "):
                    continue
                if line == "data: [DONE]":
                    ended = True
                    continue
                event = json.loads(line[6:])
                if "error" in event:
                    done.failure = json.dumps(event["error"])[:200]
                    return
                if any(choice["delta"].get("content") for choice in event["choices"]):
                    pieces += 1
                    done.first = done.first if done.first is not None else now()
                if (usage := event.get("usage")) is not None:
                    done.tokens = usage["completion_tokens"]
                if leaves_after is not None and pieces >= leaves_after:
                    done.left, done.tokens = True, pieces
                    return
            if not ended:
                done.failure = "the stream had no end"
    except httpx.HTTPError as error:
        done.failure = repr(error)[:200]
    finally:
        done.end = now()


async def asking(address: str, number: int, until: float, start: float, into: list[Asked], leaving: float) -> None:
    """Ask one question after another until a time."""
    draw, texts = random.Random(number), documents()
    async with httpx.AsyncClient(base_url=address, timeout=600.0) as client:
        while (now := time.monotonic()) < until:
            done = Asked(number, now - start)
            into.append(done)
            leaves_after = draw.randint(1, 12) if draw.random() < leaving else None
            await ask(client, body(draw, texts, len(into)), leaves_after, done, lambda: time.monotonic() - start)


async def measure(address: str, process: psutil.Process, minutes: float, run: Run) -> None:
    """Run both phases."""
    async with httpx.AsyncClient(base_url=address, timeout=600.0) as client:
        for number, text in enumerate(documents()):  # every document is read once
            sent = {**body(random.Random(0), [text], number), "max_tokens": 1}
            await ask(client, sent, None, Asked(0, 0.0), time.monotonic)
    seconds, processor = [], []
    for clients, limit, into in ((1, IN_TURN_S, run.in_turn), (run.clients, 60.0 * minutes, run.together)):
        start, before = time.monotonic(), process.cpu_times()
        until = start + limit
        # In turn nobody leaves: it is the time of whole answers.
        leaving = 0.0 if clients == 1 else LEFT
        tasks = [asyncio.create_task(asking(address, n, until, start, into, leaving)) for n in range(clients)]
        watching = asyncio.create_task(watch(process, start, limit / SAMPLES, run.memory)) if clients > 1 else None
        await asyncio.gather(*tasks)
        if watching is not None:
            watching.cancel()
        after = process.cpu_times()
        seconds.append(time.monotonic() - start)
        processor.append(after.user + after.system - before.user - before.system)
    run.seconds, run.processor = (seconds[0], seconds[1]), (processor[0], processor[1])


async def watch(process: psutil.Process, start: float, every: float, into: list[tuple[float, int]]) -> None:
    """Note the server's memory at intervals."""
    while True:
        into.append((time.monotonic() - start, process.memory_info().rss))
        await asyncio.sleep(every)


def serve(server: str, model: str, port: int, more: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a server."""
    if server == "rapid":
        command = ["-m", "rapid_integrations", "serve", "--target", model, "--model-name", "model"]
        return subprocess.Popen([sys.executable, *command, "--port", str(port), *more], stderr=subprocess.DEVNULL)
    return subprocess.Popen([sys.executable, __file__, "llama-server", model, str(port)], stderr=subprocess.DEVNULL)


def llama_server(model: str, port: int) -> None:
    """Run llama.cpp's server, with eight slots as `rapid serve` has turns, until the process is ended."""
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path, settings.port = model, port
    settings.n_parallel, settings.n_ctx = 8, 8 * 4096
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = int(os.environ.get("OMP_NUM_THREADS", "2"))
    server = xllamacpp.Server(settings)
    time.sleep(24 * 3600)
    del server


def run_one(arguments: argparse.Namespace) -> None:
    """Start a server, measure it, and write what was measured."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, before = f"http://127.0.0.1:{port}", os.getloadavg()[0]
    run = Run(" ".join([arguments.server, *arguments.more]), Path(arguments.model).name, arguments.clients)
    process = serve(arguments.server, arguments.model, port, arguments.more)
    try:
        deadline = time.monotonic() + 300
        while True:
            try:
                if httpx.get(f"{address}/health").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("the server did not start")
            time.sleep(0.5)
        asyncio.run(measure(address, psutil.Process(process.pid), arguments.minutes, run))
    finally:
        process.terminate()
        process.wait(60)
    run.load = (before, os.getloadavg()[0])
    arguments.out.write_text(json.dumps(asdict(run)))
    show([run])


def read(path: Path) -> Run:
    """Return what `run` wrote."""
    said = json.loads(path.read_text())
    phases = {name: [Asked(**each) for each in said[name]] for name in ("in_turn", "together")}
    return Run(**{**said, **phases})


def show(runs: Sequence[Run]) -> None:
    """Print a table with a column for each run."""
    from rich.console import Console
    from rich.table import Table

    table = Table("", *[run.server for run in runs])
    rows: dict[str, list[str]] = {}
    for run in runs:
        for name, value in figures(run).items():
            rows.setdefault(name, []).append(value)
    for name, values in rows.items():
        table.add_row(name, *values)
    Console(width=60 + 30 * len(runs)).print(table)


def figures(run: Run) -> dict[str, str]:
    """Return the figures of a run, by what they are."""
    answered = [each for each in run.together if each.failure is None]
    of_client = [sum(each.client == number for each in answered) for number in range(run.clients)]
    memory = [amount for _, amount in run.memory]
    half = len(memory) // 2
    return {
        "seconds; load before and after": f"{run.seconds[1]:.0f}; {run.load[0]:.1f}, {run.load[1]:.1f}",
        "answers (left early); failures": f"{len(answered)} ({sum(each.left for each in answered)}); "
        f"{len(run.together) - len(answered)}",
        "tokens/s": f"{_tokens(run.together) / run.seconds[1]:.1f}",
        "tokens/s in turn": f"{_tokens(run.in_turn) / run.seconds[0]:.1f}",
        "tokens for a processor second": f"{_tokens(run.together) / run.processor[1]:.1f}",
        "the same in turn": f"{_tokens(run.in_turn) / run.processor[0]:.1f}",
        "first token: median, 95%, longest, s": ", ".join(f"{each:.1f}" for each in _waits(run.together)),
        "first token in turn: median, s": f"{_waits(run.in_turn)[0]:.2f}",
        "answers of a client: least, most": f"{min(of_client)}, {max(of_client)}",
        "MiB: start, half-way, end, most": ", ".join(
            f"{each >> 20:,}" for each in (memory[0], memory[half], memory[-1], max(memory))
        ),
    }


def _tokens(requests: Sequence[Asked]) -> int:
    return sum(each.tokens for each in requests)


def _waits(requests: Sequence[Asked]) -> tuple[float, float, float]:
    waits = sorted(each.first - each.start for each in requests if each.first is not None)
    return statistics.median(waits), waits[int(0.95 * (len(waits) - 1))], waits[-1]


def draw(runs: Sequence[Run], path: Path) -> None:
    """Draw waits and memory over time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        2, len(runs), figsize=(4.2 * len(runs), 5), squeeze=False, sharey="row", sharex="col"
    )
    for column, run in enumerate(runs):
        waits, memory = axes[0][column], axes[1][column]
        for left, label in ((False, "complete"), (True, "client left")):
            found = [(e.start / 60, e.first - e.start) for e in run.together if e.first is not None and e.left == left]
            waits.plot(*zip(*found, strict=True), ".", markersize=3, label=label)
        memory.plot([at / 60 for at, _ in run.memory], [amount / 2**20 for _, amount in run.memory])
        waits.set_title(run.server, fontsize=10)
        memory.set_xlabel("minutes")
        memory.set_ylim(bottom=0)
    axes[0][0].set_ylabel("first token after, s")
    axes[1][0].set_ylabel("resident memory, MiB")
    axes[0][0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run")
    running.add_argument("--server", choices=("rapid", "llama.cpp"), required=True)
    running.add_argument("--model", required=True)
    running.add_argument("--minutes", type=float, default=10.0)
    running.add_argument("--clients", type=int, default=32)
    running.add_argument("--out", type=Path, required=True)
    running.add_argument("more", nargs="*", default=[])
    showing = commands.add_parser("show")
    showing.add_argument("files", type=Path, nargs="+")
    showing.add_argument("--picture", type=Path)
    serving = commands.add_parser("llama-server")
    serving.add_argument("model")
    serving.add_argument("port", type=int)
    arguments = parser.parse_args()
    if arguments.command == "llama-server":
        llama_server(arguments.model, arguments.port)
    elif arguments.command == "run":
        run_one(arguments)
    else:
        runs = [read(path) for path in arguments.files]
        show(runs)
        if arguments.picture is not None:
            draw(runs, arguments.picture)


if __name__ == "__main__":
    main()
