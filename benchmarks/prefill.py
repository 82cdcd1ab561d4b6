"""How fast prompts are read, and which share of what the processor can multiply that is.

    python benchmarks/prefill.py --target model.gguf --tokens 1000 --tokens 8000 --tokens 16000

The rate of a prefill counts the products of its matrices and of causal attention, and nothing else that it does. The
rate of the processor is the best that PyTorch's own products reach in the same process, of large square matrices in
bfloat16. The last line is JSON.
"""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from rapid_integrations.benchmarks.figures import figures_table, print_table
from rapid_integrations.cache import Rows
from rapid_integrations.config import DEFAULT_TARGET
from rapid_integrations.decoding.reader import PREFILL_CHUNK
from rapid_integrations.evaluation.timing import describe_machine
from rapid_integrations.models import loader

NOTES = ("attention: its share of the operations.", "MiB: the most memory that the process has held so far.")
SIZES = (1024, 2048, 4096)  # of the square matrices
MIB = 2**20
CPU = torch.device("cpu")


def best_rate() -> float:
    """Return the operations a second of the fastest of PyTorch's products, with torch's number of threads."""
    rates = []
    for size in SIZES:
        left, right = (torch.randn(size, size, dtype=torch.bfloat16) for _ in range(2))
        for _ in range(10):
            begun = time.perf_counter()
            left @ right
            rates.append(2 * size**3 / (time.perf_counter() - begun))
    return max(rates)


def operations(lm, tokens: int) -> tuple[float, float]:
    """Return the operations of a prompt's matrix products, and those of its attention, for a Llama-like decoder."""
    config = lm.model.config
    width, heads = config.hidden_size, config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or width // heads
    of_heads = 2 * heads * head_dim + 2 * config.num_key_value_heads * head_dim
    weights = config.num_hidden_layers * (width * of_heads + 3 * width * config.intermediate_size)
    return 2.0 * weights * tokens, 2.0 * config.num_hidden_layers * heads * head_dim * tokens**2


def read(lm, ids: torch.Tensor) -> float:
    """Return the seconds in which a prompt is read, piece by piece as the engine reads it."""
    cache = lm.new_cache(len(ids))
    begun = time.perf_counter()
    for begin in range(0, len(ids), PREFILL_CHUNK):
        lm.forward([Rows(ids[begin : begin + PREFILL_CHUNK], cache, 0, of_prompt=True)])
    return time.perf_counter() - begun


def main(
    target: Annotated[list[str], typer.Option(help="Models to read with.")] = [DEFAULT_TARGET],  # noqa: B006
    tokens: Annotated[list[int], typer.Option(help="Lengths of the prompts.")] = [1000, 8000],  # noqa: B006
    document: Annotated[Path, typer.Option(help="Text that is repeated.")] = Path("examples/handbook.md"),
    repeats: Annotated[int, typer.Option(help="Runs of each length; the fastest counts.")] = 1,
) -> None:
    """Measure Llama-like decoders, and print a table and a line of JSON."""
    console, found, peak = Console(), [], best_rate()
    for name in target:
        loaded = loader.load(name)
        ids = torch.tensor(loaded.vocabulary.encode(document.read_text(encoding="utf-8")))
        for length in tokens:
            if length > loaded.lm.context_window:
                console.print(f"{name} reads {loaded.lm.context_window:,} tokens at most: {length:,} are left out")
                continue
            console.print(f"{name} reads {length:,} tokens ...")
            prompt = ids.repeat(-(-length // len(ids)))[:length]
            seconds = min(read(loaded.lm, prompt) for _ in range(repeats))
            products, attention = operations(loaded.lm, length)
            found.append(
                {
                    "model": Path(name).parent.name or name,
                    "tokens": length,
                    "seconds": round(seconds, 2),
                    "tokens_per_s": round(length / seconds, 1),
                    "of_attention": round(attention / (products + attention), 3),
                    "gops": round((products + attention) / seconds / 1e9),
                    "share": round((products + attention) / seconds / peak, 3),
                    "resident_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 // MIB,
                }
            )
        del loaded
    title = f"Prefill; PyTorch's best product does {peak / 1e9:,.0f} billion operations a second"
    columns = ["tokens", "s", "tokens/s", "attention", "10⁹/s", "of the best", "MiB"]
    table = figures_table(title, ["model"], columns, NOTES)
    for each in found:
        model, length, seconds, rate, of_attention, gops, share, mib = each.values()
        figures = (f"{length:,}", f"{seconds:.1f}", f"{rate:.0f}", f"{of_attention:.0%}")
        table.add_row(model, *figures, f"{gops:,}", f"{share:.0%}", f"{mib:,}")
    print_table(console, table)
    typer.echo(json.dumps({"peak_gops": round(peak / 1e9), "prefill": found, "machine": describe_machine(CPU)}))


if __name__ == "__main__":
    typer.run(main)
