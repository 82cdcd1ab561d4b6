"""Whole steps of a model, and the products that they are made of."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch.nn.functional import linear

from benchmarks.gpu_stages import (
    CONTEXTS,
    DEVICE,
    DRY,
    HEAD_DIM,
    KV_HEADS,
    LAYERS,
    MATRICES,
    PROMPT_ROWS,
    RETRIEVAL,
    ROWS,
    Say,
)
from benchmarks.gpu_stages.attention import relative
from benchmarks.gpu_stages.model import random_lm
from benchmarks.gpu_stages.timing import caught_up, kernels, launch_ms, ms, peak_gb, wall_ms
from rapid_integrations.benchmarks.shapes import random_cache
from rapid_integrations.cache import Rows
from rapid_integrations.decoding.passes import run_alone
from rapid_integrations.decoding.reader import Reader, prefill_chunk
from rapid_integrations.models.linear import make_linear


def _steps(say: Say, quantization: str | None, contexts: tuple[int, ...]) -> None:

    began = time.perf_counter()
    lm = random_lm(quantization)
    caught_up()
    held = torch.cuda.memory_allocated()
    steps = lm._fused._gpu
    say(
        quantization=quantization,
        load_s=round(time.perf_counter() - began, 1),  # with the compilation of kernels and the capture of a step
        load_peak_gb=peak_gb(),
        held_gb=held / 1e9,
        weight_bytes_gb=lm.weight_bytes / 1e9,
        kernels=lm.kernels,
        graph=None if steps is None else type(steps._graph).__name__,
    )
    try:
        _same_bits(say, lm)
    except Exception as failed:
        say(quantization=quantization, bits_failed=repr(failed)[:400])
    for length in contexts:
        cache = random_cache(lm, length, 64)
        for new in ROWS:
            ids = torch.arange(new, device=DEVICE)
            row: dict[str, Any] = {"quantization": quantization, "length": length, "new": new}

            def whole(ids: Any = ids, new: int = new) -> None:
                lm.forward([Rows(ids, cache, new)])
                cache.rollback(length)

            def quiet(ids: Any = ids, new: int = new) -> Any:
                return lm._fused._read([Rows(ids, cache, new, check=False)])

            try:
                row["today_ms"] = wall_ms(whole)
                row["launch_ms"] = launch_ms(quiet)
                if new in (1, 9) and length in (RETRIEVAL, CONTEXTS[-1]):
                    row["kernels"] = kernels(quiet)
                row["graph_ms"] = _graph_ms(lm, cache, ids, new)
            except Exception as failed:
                row["failed"] = repr(failed)[:400]
            read = lm.weight_bytes + 2 * KV_HEADS * HEAD_DIM * 2 * LAYERS * length
            row["floor_ms_at_3tb"] = read / 3e9
            say(**row)
        del cache
        torch.cuda.empty_cache()
    lm.close()


def _same_bits(say: Say, lm: Any, length: int = RETRIEVAL, new: int = 9) -> None:
    """Whether a draft's rows have the same bits one by one and together; how far kernels and operators are apart."""
    cache, ids = random_cache(lm, length, 64), torch.arange(new, device=DEVICE)
    together = lm.forward([Rows(ids, cache, new)])[0]
    cache.rollback(length)
    (by_operators,) = lm._fused._read([Rows(ids, cache, new)])
    alone = []
    for each in ids.split(1):
        alone += lm.forward([Rows(each, cache, 1)])
    cache.rollback(length)
    other = random_cache(lm, length // 2, 64)
    company = lm.forward([Rows(ids[:5], other, 5), Rows(ids, cache, new)])[1]
    say(
        same_bits_alone=torch.equal(torch.cat(alone), together),
        same_bits_in_company=torch.equal(company, together),
        difference_alone=relative(torch.cat(alone), together),
        difference_to_operators=relative(together, by_operators),
    )


def _graph_ms(lm: Any, cache: Any, ids: Any, keep: int) -> float:
    """A step replayed as a CUDA graph at this very length: what remains when nothing waits for the host."""
    if DRY:
        return 0.0
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            lm._fused._read([Rows(ids, cache, keep, check=False)])
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        lm._fused._read([Rows(ids, cache, keep, check=False)])
    took = ms(lambda i: graph.replay(), warm=2, repeats=8)
    del graph
    return took


def steps(say: Say) -> None:
    _steps(say, None, (RETRIEVAL, *CONTEXTS[::-1]))


def steps_int4(say: Say) -> None:
    _steps(say, "int4", (RETRIEVAL,))


def prompt(say: Say) -> None:
    """A whole prompt in pieces, as a request reads it: the seconds until the first token may come."""
    lm = random_lm()
    length = CONTEXTS[-1]
    reader = Reader(lm, [(7 * i) % lm.vocab_size for i in range(length + 1)], length + 1)
    caught_up()
    began = time.perf_counter()
    run_alone(reader.prefill())
    caught_up()
    say(length=length, chunk=prefill_chunk(lm.device), prefill_s=time.perf_counter() - began, peak_gb=peak_gb())
    lm.close()


def _of_a_prompt(made: Any, rows: int, columns: int) -> dict[str, Any]:
    """A product with many rows, as it is and by weights that are made numbers first."""
    x = torch.randn(PROMPT_ROWS, columns, dtype=torch.bfloat16, device=DEVICE)
    took, dense = ms(lambda i: made(x)), ms(lambda i: linear(x, made.dense().to(x.dtype)))
    flops = 2 * PROMPT_ROWS * rows * columns
    return {"rows": PROMPT_ROWS, "ms": round(took, 3), "dense_ms": round(dense, 3), "tflops": flops / took / 1e9}


def linears(say: Say) -> None:
    """The five products of a layer and the head, by form of the weight; GB/s of what each form must read."""
    for name, (rows, columns) in MATRICES.items():
        weight = 0.02 * torch.randn(rows, columns, dtype=torch.bfloat16, device=DEVICE)
        copies = max(1, min(1 if DRY else 8, int(4e8 // weight.nbytes)))
        for form in (None, "int8", "int4"):
            try:
                made = [make_linear(weight, None, form) for _ in range(copies)]  # type: ignore[arg-type]
                row: dict[str, Any] = {"matrix": name, "form": form or "bfloat16"}
                for new in (1, 9, 16, 17):
                    x = torch.randn(new, columns, dtype=torch.bfloat16, device=DEVICE)
                    took = ms(lambda i, x=x: made[i % copies](x))
                    error = relative(made[0](x), x.float() @ made[0].dense().float().T)
                    row[str(new)] = {"us": round(1e3 * took, 1), "gb_per_s": round(made[0].step_bytes / took / 1e6)}
                    row[str(new)]["error"] = error
                row["prompt"] = _of_a_prompt(made[0], rows, columns)
                say(**row)
            except Exception as failed:
                say(matrix=name, form=form, failed=repr(failed)[:300])
        try:
            eight = weight.to(torch.float8_e4m3fn)
            one = torch.ones(1, rows, device=DEVICE)
            row = {"matrix": name, "form": "fp8 (_scaled_mm, one scale a row)"}
            for new in (1, 9, 16, 17):
                x = torch.randn(new, columns, device=DEVICE).to(torch.float8_e4m3fn)
                own = torch.ones(new, 1, device=DEVICE)
                took = ms(
                    lambda i, x=x, own=own: torch._scaled_mm(
                        x, eight.t(), scale_a=own, scale_b=one, out_dtype=torch.bfloat16
                    )
                )
                row[str(new)] = {"us": round(1e3 * took, 1), "gb_per_s": round(eight.nbytes / took / 1e6)}
            say(**row)
        except Exception as failed:
            say(matrix=name, form="fp8", failed=repr(failed)[:300])
