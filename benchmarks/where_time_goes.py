"""Where the time of a decode step goes: reading weights, reading keys and values, and everything else.

python benchmarks/where_time_goes.py --context 7500 --plot docs/where-the-time-goes.png

The floor of a step is the time in which memory delivers what it reads: its weights and the KV cache, each byte once.
Caches hold random values, since a step costs the same whatever they say.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import track
from torch import Tensor
from transformers import DynamicCache

from rapid_integrations.benchmarks.bandwidth import median_seconds, read_bandwidth
from rapid_integrations.benchmarks.figures import figures_table, new_figure, print_table, save_figure
from rapid_integrations.benchmarks.shapes import random_cache
from rapid_integrations.cache import KVCache, Rows
from rapid_integrations.evaluation.timing import describe_machine
from rapid_integrations.kernels.cpu import without_kernels
from rapid_integrations.models import loader
from rapid_integrations.models.hf import HuggingFaceLM

ROWS = (1, 2, 4, 8, 16)
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Way:
    """One way of computing the same step."""

    label: str
    quantization: str | None = None
    native: bool = True
    transformers: bool = False


WAYS = (
    Way("transformers float32", transformers=True, native=False),
    Way("operators bfloat16", native=False),
    Way("kernels bfloat16"),
    Way("kernels int8", "int8"),
    Way("kernels int4", "int4"),
)


@dataclass(frozen=True)
class Measured:
    """Seconds of a step for each number of new tokens, and the bytes that one reads."""

    way: str
    seconds: dict[int, float]
    weight_bytes: int
    cache_bytes: int

    def floor(self, bandwidth: float) -> float:
        """Return the seconds in which memory delivers those bytes."""
        return (self.weight_bytes + self.cache_bytes) / bandwidth


def measure(way: Way, model: str, context: int) -> Measured:
    """Time steps of 1 to 16 tokens behind `context` tokens."""
    with nullcontext() if way.native else without_kernels():
        return _measured(way, model, context)


def _measured(way: Way, model: str, context: int) -> Measured:
    lm = loader.load(
        model, quantization=way.quantization, dtype="float32" if way.transformers else "auto", quick=False
    ).lm
    if not isinstance(lm, HuggingFaceLM):
        raise typer.BadParameter(f"{model} is no transformers model")
    cache = random_cache(lm, context, max(ROWS))
    cache_bytes = sum(part.nbytes for index in range(cache.layers) for part in cache.layer(index))
    step = _transformers_step(lm, cache) if way.transformers else _step(lm, cache)
    with torch.inference_mode():
        seconds = {n: median_seconds(partial(step, torch.arange(500, 500 + n)), CPU) for n in ROWS}
    return Measured(way.label, seconds, lm.weight_bytes, cache_bytes)


def _step(lm: HuggingFaceLM, cache: KVCache) -> Callable[[Tensor], None]:
    context = cache.length

    def step(ids: Tensor) -> None:
        lm.forward([Rows(ids, cache, len(ids))])
        cache.rollback(context)

    return step


def _transformers_step(lm: HuggingFaceLM, cache: KVCache) -> Callable[[Tensor], None]:
    model, own = lm.transformers_copy(torch.float32), DynamicCache(config=lm.model.config)
    for index in range(cache.layers):
        own.update(*cache.layer(index), index)

    def step(ids: Tensor) -> None:
        model(ids[None], None, None, own)  # the cache, whatever this version calls it
        own.crop(-len(ids))

    return step


def draw(results: list[Measured], bandwidth: float, context: int, path: Path) -> None:
    """Draw one-token steps in parts, and steps of several tokens."""
    figure, (left, right) = new_figure(11, 4, 2)
    names = [result.way.replace(" ", "\n") for result in results]
    weights = [1e3 * result.weight_bytes / bandwidth for result in results]
    caches = [1e3 * result.cache_bytes / bandwidth for result in results]
    rest = [1e3 * result.seconds[1] - w - c for result, w, c in zip(results, weights, caches, strict=True)]
    left.barh(names, weights, label="weights, as fast as memory delivers")
    left.barh(names, caches, left=weights, label="keys and values, likewise")
    left.barh(
        names, rest, left=[w + c for w, c in zip(weights, caches, strict=True)], color="lightgray", label="all else"
    )
    left.invert_yaxis()
    left.set_xlabel("milliseconds")
    left.set_title(f"One token behind {context:,}")
    left.legend(fontsize="small")
    for result in results:
        right.plot(ROWS, [1e3 * result.seconds[n] for n in ROWS], marker="o", label=result.way)
    right.set_xlabel("new tokens in one step")
    right.set_ylabel("milliseconds")
    right.set_ylim(bottom=0)
    right.set_title("Verifying several tokens at once")
    right.legend(fontsize="small")
    save_figure(figure, path)


def main(
    model: Annotated[str, typer.Option(help="Packaged name, GGUF file, folder or hub name.")] = "smollm2-135m-instruct",
    context: Annotated[int, typer.Option(help="Tokens in the KV cache.")] = 7500,
    plot: Annotated[Path | None, typer.Option(help="Draw the parts into this PNG.")] = None,
) -> None:
    """Measure one model's step in five ways, beside what memory allows."""
    bandwidth = read_bandwidth()
    results = [measure(way, model, context) for way in track(WAYS, "measuring", console=Console(stderr=True))]
    rows = [
        {
            "way": result.way,
            "ms": round(1e3 * result.seconds[1], 1),
            "MB": round((result.weight_bytes + result.cache_bytes) / 1e6),
            "floor": round(1e3 * result.floor(bandwidth), 1),
            "times": round(result.seconds[1] / result.floor(bandwidth), 2),
            **{f"{n} rows": round(1e3 * result.seconds[n], 1) for n in ROWS[1:]},
        }
        for result in results
    ]
    title = f"{model}, one step behind {context:,} tokens; memory delivers {bandwidth / 1e9:.1f} GB/s"
    table = figures_table(title, ["way"], [name for name in rows[0] if name != "way"], [])
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    print_table(Console(stderr=True), table)
    if plot is not None:
        draw(results, bandwidth, context, plot)
    record = {
        "model": model,
        "context": context,
        "read_gb_per_s": round(bandwidth / 1e9, 1),
        "machine": describe_machine(CPU),
    }
    sys.stdout.write(json.dumps({**record, "steps": [asdict(result) for result in results]}) + "\n")


if __name__ == "__main__":
    typer.run(main)
