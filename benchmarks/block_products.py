"""Times of a decode step's products with each format of GGUF files: `python benchmarks/block_products.py`.

For each format: bytes read a second with one row of input, and milliseconds with 1, 4 and 8 rows, with
nanoseconds a weight to put it into panels and to turn it into bfloat16. The weight is random and as large as those of a
layer of a 1.5B model, four times over. Times are the least of a few runs of one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from rapid_integrations.cache.arena import Arena
from rapid_integrations.kernels.cpu import NativeMatrix, native_library
from rapid_integrations.kernels.cpu.blocks import FORMATS, BlockFormat, pack, panels_shape, weights_of
from rapid_integrations.kernels.cpu.matrices import AnyMatrix, NativeBlocks, product

ROWS, COLUMNS, TILE = 4 * 8960, 1536, 64


def least(run: Callable[[], object], times: int = 7) -> float:
    """Return the seconds of the fastest of several runs."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return min(found)


def main() -> None:
    """Measure every format, and bfloat16."""
    if native_library() is None:
        raise SystemExit("there are no kernels here")
    torch.set_num_threads(1)
    arena = Arena()
    inputs = {count: torch.randn(count, COLUMNS).bfloat16() for count in (1, 4, 8)}
    table = Table("format", "GB/s", *(f"{count} rows, ms" for count in inputs), "pack, ns", "unpack, ns")
    for form in FORMATS.values():
        raw = torch.randint(0, 60, (ROWS, COLUMNS // form.columns * form.file_bytes), dtype=torch.uint8)
        if form.name == "MXFP4":
            raw.view(ROWS, -1, form.file_bytes)[..., 0] = (
                125  # other exponents make numbers that are slow to compute with
            )
        panels = arena.empty(panels_shape(form, *raw.shape), torch.uint8)

        def fill(form: BlockFormat = form, raw: Tensor = raw, panels: Tensor = panels) -> None:
            pack(form, raw, panels)

        def unpack(form: BlockFormat = form, panels: Tensor = panels) -> None:
            for start in range(0, len(panels), TILE):
                weights_of(form, panels[start : start + TILE], torch.bfloat16)

        weights = [f"{least(run, 3) / (ROWS * COLUMNS) * 1e9:.2f}" for run in (fill, unpack)]
        table.add_row(form.name, *products(NativeBlocks(form, panels, ROWS), panels.nbytes, inputs), *weights)
    plain = arena.copy(torch.randn(ROWS, COLUMNS).bfloat16())
    table.add_row("BF16", *products(NativeMatrix(plain), plain.nbytes, inputs), "", "")
    Console().print(table)


def products(matrix: AnyMatrix, size: int, inputs: Mapping[int, Tensor]) -> list[str]:
    """Return the cells of a weight of so many bytes."""
    times = [least(lambda x=x: product(matrix, x)) for x in inputs.values()]  # type: ignore[misc]
    return [f"{size / times[0] / 1e9:.1f}", *(f"{1000 * seconds:.2f}" for seconds in times)]


if __name__ == "__main__":
    main()
