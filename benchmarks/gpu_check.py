"""Ten minutes' worth of knowledge from a GPU, most valuable first; every result is on disk the moment it is known.

    python3 benchmarks/gpu_check.py --out $OUT --seconds 470 [--only env,correctness] [--dry]

A parent that never touches CUDA starts a worker and watches it: a stage over its limit is killed with its process (a
poisoned CUDA context cannot be used again) and all that this one has started, and a new worker goes on with the next
stage. Results: results.jsonl, one JSON object a line. `docs/gpu.md` says what is measured and why.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

if not __package__:  # a script's own folder is in the path, but not the one above it
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.gpu_stages import ROOT, STAGES, SWITCH

os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")


def _surroundings() -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def results_in(out: Path) -> list[dict[str, Any]]:
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
        (out / "next").write_text(json.dumps([name, time.time()]))
        (out / "next").replace(out / "current")  # the watcher never sees half of it
        began = time.time()
        say = lambda name=name, **values: _write(out, {"stage": name, **values})  # noqa: E731
        try:
            stage = getattr(import_module(f"benchmarks.gpu_stages.{STAGES[name].module}"), name)
            stage(say, results_in(out)) if name == "modelled" else stage(say)
            end = "done"
        except Exception:
            end = traceback.format_exc()[-1500:]
        _write(out, {"stage": name, "ended": end, "seconds": round(time.time() - began, 1)})
        if "torch" in sys.modules:
            import torch

            gc.collect()
            torch.cuda.empty_cache()


def end(process: subprocess.Popen[Any]) -> None:
    """Kill a process that began a session of its own, and whatever it has started: on the GPU it would go on."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def watch(names: list[str], out: Path, seconds: float) -> None:
    deadline = time.time() + seconds
    while names and time.time() < deadline - 5:
        command = [sys.executable, __file__, "--worker", ",".join(names), "--out", str(out)]
        (out / "current").unlink(missing_ok=True)
        worker = subprocess.Popen(command, env=_surroundings(), start_new_session=True)
        stage, why = names[0], ""
        while worker.poll() is None:
            time.sleep(0.2)
            if (out / "current").exists():
                stage, began = json.loads((out / "current").read_text())
                if time.time() - began > STAGES[stage].seconds:
                    why = f"over {STAGES[stage].seconds} s"
            if time.time() > deadline:
                why = "no time left"
            if why:
                end(worker)
        ended = {r["stage"] for r in results_in(out) if "ended" in r}
        if stage not in ended:
            _write(out, {"stage": stage, "ended": why or f"the worker died: exit {worker.returncode}"})
            ended.add(stage)
        names = [name for name in names if name not in ended]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=470.0)
    parser.add_argument("--only", default="")
    parser.add_argument("--dry", action="store_true", help="tiny shapes on the processor: whether the stages run")
    parser.add_argument("--worker", default="")
    asked = parser.parse_args()
    if asked.dry:
        os.environ[SWITCH] = "dry"  # for the worker
    asked.out.mkdir(parents=True, exist_ok=True)
    if asked.worker:
        work(asked.worker.split(","), asked.out)
        return
    watch([n for n in STAGES if not asked.only or n in asked.only.split(",")], asked.out, asked.seconds)
    for result in results_in(asked.out):  # the reply carries the end of the output: what matters, once more and short
        if result["stage"] in ("env", "correctness", "modelled") or "ended" in result or "same_bits_alone" in result:
            print({k: v for k, v in result.items() if k not in ("tail", "kernels")}, flush=True)


if __name__ == "__main__":
    main()
