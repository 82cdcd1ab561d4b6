"""Keeps the results of `gpu_check.py` and writes the page about them.

python benchmarks/gpu_results.py build/gpu-check/results.jsonl

The results become docs/results/gpu-NAME.json, NAME being the GPU's. The page docs/results/gpu.md is made of all such
files; without one, there is no page.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "docs" / "results"


def name_of(results: Sequence[Mapping[str, Any]]) -> str:
    """Return a file name for the GPU that the stage "env" found."""
    gpu = next((each["gpu"] for each in results if "gpu" in each), None)
    if gpu is None:
        raise SystemExit("the results have no GPU: the stage 'env' did not finish. Run the check again")
    return re.sub(r"[^a-z0-9]+", "-", str(gpu).lower()).strip("-")


def bars(results: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """Return what is aimed at: each bar with what was measured for it, and "yes", "no" or "not measured"."""
    copied = next((each["copy_tb_per_s"] for each in results if "copy_tb_per_s" in each), None)
    steps = [each for each in results if each["stage"] == "steps" and "today_ms" in each]
    longest = max((each["length"] for each in steps), default=0)
    found: list[tuple[str, float | None, float]] = []
    for rows in (1, 16):
        step = next((each for each in steps if (each["length"], each["new"]) == (longest, rows)), None)
        ratio = step["today_ms"] / (step["floor_ms_at_3tb"] * 3.0 / copied) if step and copied else None
        found.append(
            (f"a step of {rows} rows behind {longest:,} tokens, by the time that its bytes are copied in", ratio, 1.3)
        )
    prompt = next((each["prefill_s"] for each in results if "prefill_s" in each), None)
    found.append(("seconds to read the longest prompt (on an H100)", prompt, 15.0))
    between = [each["between_ms"] for each in results if "between_ms" in each]
    found.append(("milliseconds of a round that are no pass", max(between, default=None), 1.0))
    table = [
        (name, "" if value is None else f"{value:.3g} (at most {most})", _kept(value, most))
        for name, value, most in found
    ]
    gains = [each["to_target"] for each in results if each["stage"] == "modelled" and each.get("acceptance") == 0.9]
    best = max(gains, default=None)
    gain = "" if best is None else f"{best:.3g} (at least 2)"
    return [*table, ("modelled speed over the target alone at an acceptance of .9", gain, _kept(best and -best, -2.0))]


def _kept(value: float | None, most: float) -> str:
    return "not measured" if value is None else "yes" if value <= most else "no"


def page(measured: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Return the page in Markdown for the results of each GPU, by name."""
    lines = [
        "# Measured on GPUs",
        "",
        "`make gpu-check` made these figures; [gpu.md](../gpu.md) says what they mean.",
        "",
    ]
    for name, results in sorted(measured.items()):
        lines += [f"## {name}", "", "| stage | ended | seconds |", "| --- | --- | --- |"]
        for each in results:
            if "ended" in each:
                ended = str(each["ended"]).strip().splitlines()[-1].replace("|", "\\|")
                lines.append(f"| {each['stage']} | {ended} | {each.get('seconds', '')} |")
        lines += [
            "",
            "| bar | measured | kept |",
            "| --- | --- | --- |",
            *(f"| {' | '.join(bar)} |" for bar in bars(results)),
        ]
        modelled = [each for each in results if each["stage"] == "modelled" and "tps" in each]
        if modelled:
            columns = ("way", "length", "acceptance", "drafter", "draft_length", "tps", "to_target")
            lines += ["", f"| {' | '.join(columns)} |", "|" + " --- |" * len(columns)]
            lines += [f"| {' | '.join(str(each[column]) for column in columns)} |" for each in modelled]
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Keep a run's results, and write the page anew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, help="the results.jsonl of a run")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="where results are kept")
    asked = parser.parse_args()
    results = [json.loads(line) for line in asked.results.read_text().splitlines()]
    kept = asked.folder / f"gpu-{name_of(results)}.json"
    kept.write_text(json.dumps(results, indent=1) + "\n")
    measured = {
        path.stem.removeprefix("gpu-"): json.loads(path.read_text()) for path in asked.folder.glob("gpu-*.json")
    }
    (asked.folder / "gpu.md").write_text(page(measured))
    sys.stdout.write(f"{kept} and {asked.folder / 'gpu.md'} were written\n")


if __name__ == "__main__":
    main()
