"""Ten minutes' worth of knowledge from a GPU, most valuable first; every result is on disk the moment it is known.

    python3 benchmarks/gpu_check.py --out $OUT --seconds 470 [--only env,correctness,attention]

A parent that never touches CUDA starts a worker and watches it: a stage over its limit is killed with its process (a
poisoned CUDA context cannot be used again), and a new worker goes on with the next stage. Results: results.jsonl, one
JSON object a line. `docs/gpu.md` says what is measured and why.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")

SHAPE = "llama-3.1-8b"
HEADS, KV_HEADS, HEAD_DIM, VOCAB = 32, 8, 128, 128_256
CONTEXTS, RETRIEVAL = (32_768, 65_536, 122_880), 4096
ROWS = (1, 2, 5, 9, 16, 17)
Say = Callable[..., None]


# --- timing ---------------------------------------------------------------------------------------------------------


def ms(step: Callable[[int], object], *, warm: int = 2, repeats: int = 12) -> float:
    """Median device milliseconds; `step(i)` may rotate its inputs, so that nothing is read from the L2 cache."""
    import torch

    times = []
    for i in range(warm + repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        step(i)
        end.record()
        end.synchronize()
        if i >= warm:
            times.append(begin.elapsed_time(end))
    return median(times)


def wall_ms(step: Callable[[], object], *, warm: int = 2, repeats: int = 8) -> float:
    """Median milliseconds on the host's clock, between two synchronisations: what the engine pays today."""
    import torch

    times = []
    for i in range(warm + repeats):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        step()
        torch.cuda.synchronize()
        if i >= warm:
            times.append(1e3 * (time.perf_counter() - begin))
    return median(times)


def launch_ms(step: Callable[[], object]) -> float:
    """Milliseconds in which the host enqueues a step that waits for nothing: the floor without CUDA graphs."""
    import torch

    step()
    torch.cuda.synchronize()
    torch.cuda._sleep(400_000_000)  # a fifth of a second or so, behind which the queue fills
    begin = time.perf_counter()
    step()
    taken = 1e3 * (time.perf_counter() - begin)
    torch.cuda.synchronize()
    return taken


def first_and_steady_ms(step: Callable[[], object]) -> tuple[float, float]:
    """The very first call (plans, compilation), then the median."""
    import torch

    torch.cuda.synchronize()
    begin = time.perf_counter()
    step()
    torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - begin), wall_ms(step, warm=1, repeats=4)


def kernels(step: Callable[[], object], top: int = 12) -> list[tuple[str, int, float]]:
    """Names, calls and device microseconds of the kernels that a step launches."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    step()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        step()
        torch.cuda.synchronize()
    rows = [(e.key[:90], e.count, round(e.self_device_time_total, 1)) for e in seen.key_averages()]
    return sorted(rows, key=lambda row: -row[2])[:top]


# --- what is compared -----------------------------------------------------------------------------------------------


def folded(q: Any, k: Any, v: Any, scale: float) -> Any:
    """The path without the flash operator."""
    from rapid_integrations.kernels.layers import PLAIN
    from rapid_integrations.models.attention import _folded
    from rapid_integrations.models.mask import Sight

    return _folded(q, [(k, v)], scale, Sight(None, None), PLAIN)


def masked(q: Any, k: Any, v: Any, scale: float) -> Any:
    """A prompt's piece by the library's attention with a mask, as before flash attention was used."""
    from rapid_integrations.models.attention import _fused
    from rapid_integrations.models.mask import Sight

    return _fused(q, k, v, scale, Sight(None, None))


def today(q: Any, k: Any, v: Any, scale: float) -> Any:
    """What the package runs."""
    from rapid_integrations.models.attention import attend

    return attend(q, [(k, v)], scale, None)


def random_kv(length: int, bytes_wanted: float = 1.5e9) -> list[tuple[Any, Any]]:
    """Sets of keys and values, enough of them that repeated runs do not find one in the L2 cache."""
    import torch

    one = 4 * KV_HEADS * length * HEAD_DIM
    shape = (1, KV_HEADS, length, HEAD_DIM)
    return [
        tuple(torch.randn(shape, dtype=torch.bfloat16, device="cuda") for _ in range(2))  # type: ignore[misc]
        for _ in range(max(1, min(16, int(bytes_wanted // one))))
    ]


def relative(found: Any, expected: Any) -> float:
    return float((found.float() - expected.float()).norm() / expected.float().norm())


# --- stages ---------------------------------------------------------------------------------------------------------


def env(say: Say) -> None:
    import torch
    import transformers
    import triton

    device = torch.cuda.get_device_properties(0)
    smi = ["nvidia-smi", "--query-gpu=name,driver_version,clocks.sm,clocks.mem,temperature.gpu,power.draw"]
    say(
        gpu=device.name,
        sms=device.multi_processor_count,
        l2=device.L2_cache_size,
        free=torch.cuda.mem_get_info()[0],
        torch=torch.__version__,
        cudnn=torch.backends.cudnn.version(),
        triton=triton.__version__,
        transformers=transformers.__version__,
        sdpa_order=str(torch._C._get_sdp_priority_order()),
        smi=subprocess.run([*smi, "--format=csv,noheader"], capture_output=True, text=True).stdout.strip(),
        cpus=os.cpu_count(),
    )
    source = torch.randint(0, 2**62, (2**28,), dtype=torch.int64, device="cuda")
    copy = torch.empty_like(source)
    a, b = (torch.randn(8192, 8192, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    say(
        copy_tb_per_s=2 * source.nbytes / ms(lambda i: copy.copy_(source)) / 1e9,
        read_tb_per_s=source.nbytes / ms(lambda i: source.sum()) / 1e9,
        bf16_tflops=2 * 8192**3 / ms(lambda i: a @ b) / 1e9,
    )


def correctness(say: Say) -> None:
    """tests/gpu and what else is marked gpu; without the project's pytest settings, whose plugins are not there."""
    command = [sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir=.", "-p", "no:cacheprovider", "-q", "-rfEx"]
    command += ["-m", "gpu", "--timeout=60", "--maxfail=25", "tests/gpu", "tests/laws/test_enumeration.py"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": _path()})
    say(exit=done.returncode, tail=done.stdout[-6000:], errors=done.stderr[-2000:])


def attention(say: Say) -> None:
    """One layer's attention: what runs today, and what could run instead; microseconds, GB/s and error."""
    import torch
    from torch.nn.attention.bias import causal_lower_right
    from torch.nn.functional import scaled_dot_product_attention as sdpa

    scale = HEAD_DIM**-0.5
    for length in (4096, 32_768, 122_880):
        sets = random_kv(length)
        read = 4 * KV_HEADS * length * HEAD_DIM
        for new in ROWS:
            q = torch.randn(1, new, HEADS, HEAD_DIM, dtype=torch.bfloat16, device="cuda").transpose(1, 2)
            ways: dict[str, Callable[[Any, Any], Any]] = {
                "today": lambda k, v, q=q: today(q, k, v, scale),
                "folded": lambda k, v, q=q: folded(q, k, v, scale),
                "sdpa lower right": lambda k, v, q=q, n=new, m=length: sdpa(
                    q, k, v, attn_mask=causal_lower_right(n, m), scale=scale, enable_gqa=True
                ).transpose(1, 2),
            }
            exact = folded(q.float(), *(x.float() for x in sets[0]), scale)
            row: dict[str, Any] = {"length": length, "new": new}
            for name, way in ways.items():
                try:
                    took = ms(lambda i, way=way: way(*sets[i % len(sets)]))
                    error = relative(way(*sets[0]), exact)
                    row[name] = {"us": round(1e3 * took, 1), "gb_per_s": round(read / took / 1e6), "error": error}
                except Exception as failed:
                    row[name] = repr(failed)[:300]
            say(**row)
        del sets
        torch.cuda.empty_cache()


def _lm(quantization: str | None = None) -> Any:
    import torch

    from rapid_integrations.benchmarks.shapes import load_shape, random_model

    shape = load_shape(SHAPE)
    device = torch.device("cuda", 0)
    return random_model(SHAPE, shape, torch.bfloat16, device, shape["num_hidden_layers"], quantization)


def _steps(say: Say, quantization: str | None, contexts: tuple[int, ...]) -> None:
    import torch

    from rapid_integrations.benchmarks.shapes import random_cache
    from rapid_integrations.cache import Rows
    from rapid_integrations.models import fused_decoder

    began = time.perf_counter()
    lm = _lm(quantization)
    torch.cuda.synchronize()
    held = torch.cuda.memory_allocated()
    say(
        quantization=quantization,
        load_s=round(time.perf_counter() - began, 1),
        load_peak_gb=torch.cuda.max_memory_allocated() / 1e9,
        held_gb=held / 1e9,
        weight_bytes_gb=lm.weight_bytes / 1e9,
    )
    kept = fused_decoder.numbers
    for length in contexts:
        cache = random_cache(lm, length, 64)
        for new in ROWS:
            ids = torch.arange(new, device="cuda")
            row: dict[str, Any] = {"quantization": quantization, "length": length, "new": new}

            def whole(ids: Any = ids, new: int = new) -> None:
                lm.forward([Rows(ids, cache, new)])
                cache.rollback(length)

            def quiet(ids: Any = ids, new: int = new) -> Any:
                return lm._fused._read([Rows(ids, cache, new)])

            row["today_ms"] = wall_ms(whole)
            fused_decoder.numbers = lambda logits: logits.float()
            try:
                row["launch_ms"] = launch_ms(quiet)
                if new in (1, 9) and length in (RETRIEVAL, CONTEXTS[-1]):
                    row["kernels"] = kernels(quiet)
                row["graph_ms"] = _graph_ms(lm, cache, ids, new)
            except Exception as failed:
                row["failed"] = repr(failed)[:400]
            finally:
                fused_decoder.numbers = kept
            read = lm.weight_bytes + 2 * KV_HEADS * HEAD_DIM * 2 * 32 * length
            row["floor_ms_at_3tb"] = read / 3e9
            say(**row)
        del cache
        torch.cuda.empty_cache()
    lm.close()


def _graph_ms(lm: Any, cache: Any, ids: Any, keep: int) -> float:
    """A step replayed as a CUDA graph at this very length: what remains when nothing waits for the host."""
    import torch

    from rapid_integrations.cache import Rows

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            lm._fused._read([Rows(ids, cache, keep)])
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        lm._fused._read([Rows(ids, cache, keep)])
    took = ms(lambda i: graph.replay(), warm=2, repeats=8)
    del graph
    return took


def steps(say: Say) -> None:
    _steps(say, None, (RETRIEVAL, *CONTEXTS[::-1]))


def steps_int4(say: Say) -> None:
    _steps(say, "int4", (RETRIEVAL,))


def linears(say: Say) -> None:
    """The five products of a layer and the head, by form of the weight; GB/s of what each form must read."""
    import torch

    from rapid_integrations.models.linear import make_linear

    shapes = {"qkv": (6144, 4096), "out": (4096, 4096), "gate_up": (28_672, 4096), "down": (4096, 14_336)}
    shapes |= {"head": (VOCAB, 4096), "smollm2": (1536, 576)}
    for name, (rows, columns) in shapes.items():
        weight = 0.02 * torch.randn(rows, columns, dtype=torch.bfloat16, device="cuda")
        copies = max(1, min(8, int(4e8 // weight.nbytes)))
        for form in (None, "int8", "int4"):
            try:
                made = [make_linear(weight, None, form) for _ in range(copies)]  # type: ignore[arg-type]
                row: dict[str, Any] = {"matrix": name, "form": form or "bfloat16"}
                for new in (1, 9, 16, 17):
                    x = torch.randn(new, columns, dtype=torch.bfloat16, device="cuda")
                    took = ms(lambda i, x=x: made[i % copies](x))
                    error = relative(made[0](x), x.float() @ made[0].dense().float().T)
                    row[str(new)] = {"us": round(1e3 * took, 1), "gb_per_s": round(made[0].step_bytes / took / 1e6)}
                    row[str(new)]["error"] = error
                say(**row)
            except Exception as failed:
                say(matrix=name, form=form, failed=repr(failed)[:300])
        try:
            eight = weight.to(torch.float8_e4m3fn)
            one = torch.ones(1, rows, device="cuda")
            row = {"matrix": name, "form": "fp8 (_scaled_mm, one scale a row)"}
            for new in (1, 9, 16, 17):
                x = torch.randn(new, columns, device="cuda").to(torch.float8_e4m3fn)
                own = torch.ones(new, 1, device="cuda")
                took = ms(
                    lambda i, x=x, own=own: torch._scaled_mm(
                        x, eight.t(), scale_a=own, scale_b=one, out_dtype=torch.bfloat16
                    )
                )
                row[str(new)] = {"us": round(1e3 * took, 1), "gb_per_s": round(eight.nbytes / took / 1e6)}
            say(**row)
        except Exception as failed:
            say(matrix=name, form="fp8", failed=repr(failed)[:300])


def prefill(say: Say) -> None:
    """A chunk's attention behind a filled cache: which kernel runs, what its first call costs, and the way out."""
    import torch

    scale = HEAD_DIM**-0.5
    for chunk, past in (
        (1024, 0),
        (1024, 7168),
        (1024, 31_744),
        (1024, 121_856),
        (4096, 28_672),
        (4096, 118_784),
        (8192, 114_688),
    ):
        total = past + chunk
        k, v = random_kv(total, 0)[0]
        q = torch.randn(1, chunk, HEADS, HEAD_DIM, dtype=torch.bfloat16, device="cuda").transpose(1, 2)
        flops = 4 * HEADS * HEAD_DIM * chunk * (past + chunk / 2)
        row: dict[str, Any] = {"chunk": chunk, "past": past}
        ways = {"today": lambda: today(q, k, v, scale), "masked": lambda: masked(q, k, v, scale)}
        for name, way in ways.items():
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            try:
                first, steady = first_and_steady_ms(way)
                row[name] = {
                    "first_ms": round(first, 1),
                    "ms": round(steady, 3),
                    "tflops": round(flops / steady / 1e9),
                    "peak_gb": round((torch.cuda.max_memory_allocated() - before) / 1e9, 2),
                    "kernels": kernels(way, 3),
                }
            except Exception as failed:
                row[name] = repr(failed)[:300]
                torch.cuda.empty_cache()
        say(**row)
        del q, k, v


def law(say: Say) -> None:
    """What lies between the passes: the law at a position, its acceptance, a drawn token; milliseconds on the host."""
    import torch

    from rapid_integrations.kernels.ops import ops_for
    from rapid_integrations.sampling import Law, Randomness, rows, verify

    z, q = (3 * torch.randn(9, VOCAB, device="cuda") for _ in range(2))
    ops = ops_for(torch.device("cuda", 0))
    rng = Randomness(0, ops)
    for name, made in {
        "greedy target": Law("target", ops=ops),
        "greedy auto": Law("augmented", ops=ops),
        "greedy eta 10": Law("augmented", eta=10.0, ops=ops),
        "sampled auto": Law("augmented", temperature=1.0, ops=ops),
    }.items():
        form = lambda i, made=made: made.form(z[i % 9], None if made.kind == "target" else q[i % 9])  # noqa: E731
        say(law=name, position_ms=wall_ms(lambda: form(1), repeats=20))
    sampled = Law("augmented", temperature=1.0, ops=ops)
    proposed = [sampled.propose(q[i]) for i in range(8)]
    say(
        draw_ms=wall_ms(lambda: rng.draw(proposed[0]), repeats=20),
        verify_8_ms=wall_ms(
            lambda: verify(
                [int(p.argmax()) for p in proposed], proposed, lambda i: sampled.form(z[i], q[i]), rng, None, ops
            )
        ),
        argmax_ms=wall_ms(lambda: int(z[0].argmax()), repeats=20),
    )
    draft, uniforms = torch.stack([p.argmax() for p in proposed]), torch.rand(10, dtype=torch.float64, device="cuda")
    drawn = torch.stack(proposed)
    say(
        rows_laws_ms=wall_ms(lambda: rows.laws(sampled, z, q), repeats=20),
        rows_round_ms=wall_ms(lambda: rows.verdict(rows.laws(sampled, z, q), draft, drawn, uniforms), repeats=20),
    )


def rounds(say: Say) -> None:
    """The real loop over random weights: seconds a round by phase. (Nothing is accepted; the costs are the point.)"""
    import torch

    from rapid_integrations.benchmarks.shapes import random_cache
    from rapid_integrations.decoding.draft_length import FixedDraftLength
    from rapid_integrations.decoding.drafter import Drafter
    from rapid_integrations.decoding.loop import decode
    from rapid_integrations.decoding.passes import run_alone
    from rapid_integrations.decoding.reader import Reader
    from rapid_integrations.decoding.recorder import Recorder
    from rapid_integrations.decoding.rules import Rules
    from rapid_integrations.decoding.stopping import Stopping
    from rapid_integrations.decoding.text_stream import TextStream
    from rapid_integrations.kernels.ops import ops_for
    from rapid_integrations.proposers.drafter import DrafterProposer
    from rapid_integrations.sampling import Law, Penalties, Randomness

    lm = _lm()
    device = torch.device("cuda", 0)
    for length in (32_768, 122_880):
        for temperature in (0.0, 1.0):
            ids = [(7 * i) % VOCAB for i in range(length + 1)]
            made = Law("augmented", temperature=temperature, ops=ops_for(device))
            rules = Rules(made, VOCAB, Penalties(1.0, ids, VOCAB, device))
            target = Reader(lm, ids, length + 65, random_cache(lm, length, 65))
            reader = Reader(lm, ids[: RETRIEVAL + 1], RETRIEVAL + 65, random_cache(lm, RETRIEVAL, 65))
            drafter = Drafter(reader, rules)
            recorder = Recorder(device)
            recorder.start_decoding()
            run_alone(
                decode(
                    target=target,
                    proposer=DrafterProposer(drafter, FixedDraftLength(8)),
                    scorer=drafter,
                    rules=rules,
                    stopping=Stopping(frozenset(), 12, TextStream(lambda tokens: "x" * len(tokens))),
                    rng=Randomness(0, made.ops),
                    recorder=recorder,
                    emit=lambda taken: None,
                )
            )
            say(
                length=length,
                temperature=temperature,
                rounds=recorder.rounds,
                tokens=recorder.tokens,
                ms_a_round=1e3 * recorder.decode_s / recorder.rounds,
                **{f"{name}_ms": 1e3 * s / recorder.rounds for name, s in recorder.seconds.items()},
            )
            del target, reader, drafter
            torch.cuda.empty_cache()


def memory(say: Say) -> None:
    """Whether a kept prefix of 120K tokens fits what "auto" allows, alone and beside an int4 drafter."""
    import torch

    from rapid_integrations.cache.memory_budget import memory_budget

    device = torch.device("cuda", 0)
    needed = 2 * KV_HEADS * HEAD_DIM * 2 * 32 * 123_392
    target = _lm()
    alone = memory_budget("auto", [device])
    drafter = _lm("int4")
    both = memory_budget("auto", [device])
    say(needed_gb=needed / 1e9, auto_alone_gb=alone / 1e9, auto_beside_int4_gb=both / 1e9)
    say(kept_alone=alone >= needed, kept_beside_int4=both >= needed, held_gb=torch.cuda.memory_allocated() / 1e9)
    target.close(), drafter.close()


def modelled(say: Say, results: list[dict[str, Any]]) -> None:
    """Tokens/s at .8 and .9, from the steps measured above, today and as graphs; each draft token costs its law, too."""
    by = {(r["stage"], r["quantization"], r["length"], r["new"]): r for r in results if "today_ms" in r}
    position = next((r["position_ms"] for r in results if r.get("law") == "greedy auto"), 0.0)
    for way, cost in (("today", position), ("graph", position), ("graph", 0.1)):
        key = f"{way}_ms"
        for length in CONTEXTS:
            for acceptance in (0.8, 0.9):
                for form, stage in ((None, "steps"), ("int4", "steps_int4")):
                    draft = by.get((stage, form, RETRIEVAL, 1), {}).get(key)
                    alone = by.get(("steps", None, length, 1), {}).get(key)
                    best = (0.0, 0)
                    for new in ROWS[1:]:
                        k, verify = new - 1, by.get(("steps", None, length, new), {}).get(key)
                        if draft and alone and verify:
                            tokens = (1 - acceptance ** (k + 1)) / (1 - acceptance)
                            best = max(best, (tokens / (verify + (k + acceptance**k) * draft + (k + 1) * cost), k))
                    if best[1]:
                        say(
                            way=way,
                            law_ms=cost,
                            length=length,
                            acceptance=acceptance,
                            drafter=form or "bfloat16",
                            draft_length=best[1],
                            tps=1e3 * best[0],
                            to_target=best[0] * alone,
                        )


STAGES: dict[str, tuple[int, Callable[..., None]]] = {  # seconds at most; in the order of their value
    "env": (40, env),
    "correctness": (110, correctness),
    "attention": (60, attention),
    "steps": (120, steps),
    "prefill": (70, prefill),
    "linears": (60, linears),
    "steps_int4": (60, steps_int4),
    "law": (25, law),
    "memory": (40, memory),
    "rounds": (50, rounds),
    "modelled": (10, modelled),
}


# --- worker and watcher ---------------------------------------------------------------------------------------------


def _path() -> str:
    return os.pathsep.join(filter(None, (".", os.environ.get("PYTHONPATH", ""))))


def _read(out: Path) -> list[dict[str, Any]]:
    file = out / "results.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _write(out: Path, result: dict[str, Any]) -> None:
    line = json.dumps({name: _short(value) for name, value in result.items()}, default=str)
    with (out / "results.jsonl").open("a") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())
    print(line[:900], flush=True)


def _short(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value


def work(names: list[str], out: Path) -> None:
    for name in names:
        (out / "current").write_text(json.dumps([name, time.time()]))
        began = time.time()
        say = lambda name=name, **values: _write(out, {"stage": name, **values})  # noqa: E731
        try:
            stage = STAGES[name][1]
            stage(say, _read(out)) if name == "modelled" else stage(say)
            end = "done"
        except Exception:
            end = traceback.format_exc()[-1500:]
        _write(out, {"stage": name, "ended": end, "seconds": round(time.time() - began, 1)})
        if name != "modelled" and "torch" in sys.modules:
            import gc

            import torch

            gc.collect()
            torch.cuda.empty_cache()


def watch(names: list[str], out: Path, seconds: float) -> None:
    deadline = time.time() + seconds
    while names and time.time() < deadline - 5:
        command = [sys.executable, __file__, "--worker", ",".join(names), "--out", str(out)]
        (out / "current").unlink(missing_ok=True)
        worker = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": _path(), "PYTHONUNBUFFERED": "1"})
        stage, why = names[0], ""
        while worker.poll() is None:
            time.sleep(0.2)
            if (out / "current").exists():
                stage, began = json.loads((out / "current").read_text() or "[null, 0]")
                if stage and time.time() - began > STAGES[stage][0]:
                    why = f"over {STAGES[stage][0]} s"
            if time.time() > deadline:
                why = "no time left"
            if why:
                worker.kill()
                worker.wait()
        ended = {r["stage"] for r in _read(out) if "ended" in r}
        if stage and stage not in ended:
            _write(out, {"stage": stage, "ended": why or f"the worker died: exit {worker.returncode}"})
            ended.add(stage)
        names = [name for name in names if name not in ended]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=470.0)
    parser.add_argument("--only", default="")
    parser.add_argument("--worker", default="")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    if asked.worker:
        work(asked.worker.split(","), asked.out)
        return
    watch([n for n in STAGES if not asked.only or n in asked.only.split(",")], asked.out, asked.seconds)
    for result in _read(asked.out):  # the reply carries the end of the output: what matters, once more and short
        if result["stage"] in ("env", "modelled") or "ended" in result:
            print({k: v for k, v in result.items() if k not in ("tail", "kernels")}, flush=True)


if __name__ == "__main__":
    main()
