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
