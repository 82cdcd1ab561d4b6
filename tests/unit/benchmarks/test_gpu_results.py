"""The page that is made of a GPU's results."""

import json
import sys

import pytest

from benchmarks import gpu_results

RESULTS = [
    {"stage": "env", "gpu": "NVIDIA H100 80GB HBM3"},
    {"stage": "env", "ended": "done", "seconds": 9.5},
    {"stage": "steps", "ended": "Traceback ...\nRuntimeError: a | b"},
    {
        "stage": "modelled",
        "way": "graph",
        "length": 32768,
        "acceptance": 0.9,
        "drafter": "int4",
        "draft_length": 8,
        "tps": 150.0,
        "to_target": 1.9,
    },
]


def test_results_are_kept_by_the_gpus_name_and_shown(tmp_path, monkeypatch):
    lines = tmp_path / "results.jsonl"
    lines.write_text("\n".join(map(json.dumps, RESULTS)))
    monkeypatch.setattr(sys, "argv", ["gpu_results", str(lines), "--folder", str(tmp_path)])
    gpu_results.main()
    assert json.loads((tmp_path / "gpu-nvidia-h100-80gb-hbm3.json").read_text()) == RESULTS
    page = (tmp_path / "gpu.md").read_text()
    assert "## nvidia-h100-80gb-hbm3" in page and "| steps | RuntimeError: a \\| b |  |" in page
    assert "| graph | 32768 | 0.9 | int4 | 8 | 150.0 | 1.9 |" in page


def test_results_without_a_gpu_are_refused():
    with pytest.raises(SystemExit, match="the stage 'env' did not finish"):
        gpu_results.name_of(RESULTS[1:])


def test_bars_are_said_to_be_kept_missed_or_not_measured():
    results = [
        {"stage": "env", "copy_tb_per_s": 1.5},
        {"stage": "steps", "length": 90, "new": 1, "today_ms": 9.0, "floor_ms_at_3tb": 1.0},
        {"stage": "steps", "length": 120, "new": 1, "today_ms": 2.4, "floor_ms_at_3tb": 1.0},
        {"stage": "rounds", "between_ms": 0.4},
        {"stage": "rounds", "between_ms": 1.4},
        {"stage": "modelled", "acceptance": 0.9, "to_target": 2.1},
        {"stage": "modelled", "acceptance": 0.8, "to_target": 1.1},
    ]
    found = gpu_results.bars(results)
    assert [kept for *_, kept in found] == ["yes", "not measured", "not measured", "no", "yes"]
    assert [value for _, value, _ in found] == ["1.2 (at most 1.3)", "", "", "1.4 (at most 1.0)", "2.1 (at least 2)"]
    assert {kept for *_, kept in gpu_results.bars([])} == {"not measured"}
    assert "| yes |" in gpu_results.page({"a-gpu": results})
