"""What quantised weights cost in quality: perplexity on a text, and agreement of the greedy choice with bfloat16.

python benchmarks/quantization.py examples/handbook.md --model smollm2-135m-instruct --tokens 2048
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from torch.nn.functional import cross_entropy

from rapid_integrations.cache import Rows
from rapid_integrations.kernels.cpu import MAX_ROWS
from rapid_integrations.models import loader

FORMS = (None, "int8", "int4")


def logits_of(name: str, ids: Tensor, quantization: str | None) -> tuple[Tensor, int]:
    """Return the model's logits (T, V) for a text, and the bytes of weights that a step reads.

    The text is read in decode steps: these round inputs of quantised weights everywhere, and prompts do not.
    """
    lm = loader.load(name, quantization=quantization).lm
    cache = lm.new_cache(len(ids))
    logits = [lm.forward([Rows(part, cache, len(part))])[0] for part in ids.split(MAX_ROWS)]
    return torch.cat(logits), lm.weight_bytes


def main(
    text: Annotated[Path, typer.Argument(help="A text that the model has not seen.")],
    model: Annotated[str, typer.Option(help="Packaged name, GGUF file, folder or hub name.")] = "smollm2-135m-instruct",
    tokens: Annotated[int, typer.Option(help="Tokens of the text to read.")] = 2048,
) -> None:
    """Compare int8 and int4 weights with the model's own."""
    vocabulary = loader.load(model).vocabulary
    ids = torch.tensor(vocabulary.encode(text.read_text()))[:tokens]
    rows = []
    choices: Tensor | None = None
    for form in track(FORMS, "reading", console=Console(stderr=True)):
        logits, size = logits_of(model, ids, form)
        choices = logits.argmax(dim=-1) if choices is None else choices
        rows.append(
            {
                "weights": form or "as loaded",
                "perplexity": round(float(cross_entropy(logits[:-1], ids[1:]).exp()), 2),
                "greedy_agreement": round(float((logits.argmax(dim=-1) == choices).float().mean()), 4),
                "megabytes_a_step": round(size / 1e6, 1),
            }
        )
    table = Table(title=f"{model}, {len(ids):,} tokens of {text.name}", title_justify="left")
    for column in rows[0]:
        table.add_column(column.replace("_", " "), justify="left" if column == "weights" else "right")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console().print(table)
    sys.stdout.write(json.dumps({"model": model, "tokens": len(ids), "rows": rows}) + "\n")


if __name__ == "__main__":
    typer.run(main)
