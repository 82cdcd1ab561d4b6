"""What of the GPU check runs without a GPU: the watcher, the model of speeds, and what its stages call."""

import pytest
import torch

from benchmarks import gpu_check


@pytest.mark.slow  # the child imports PyTorch anew
@pytest.mark.process
def test_a_stage_that_fails_is_written_down_and_the_next_one_runs(tmp_path):
    gpu_check.watch(["law", "modelled"], tmp_path, 120)
    ended = {each["stage"]: each["ended"] for each in gpu_check._read(tmp_path) if "ended" in each}
    assert list(ended) == ["law", "modelled"] and ended["modelled"] == "done"
    assert torch.cuda.is_available() or "Error" in ended["law"]


def test_speeds_are_modelled_from_steps():
    results = [
        {"stage": stage, "quantization": form, "length": length, "new": new, "today_ms": cost, "graph_ms": cost / 2}
        for stage, form, cost in (("steps", None, 20.0), ("steps_int4", "int4", 4.0))
        for length in (gpu_check.RETRIEVAL, *gpu_check.CONTEXTS)
        for new in gpu_check.ROWS
    ]
    said = []
    gpu_check.modelled(lambda **values: said.append(values), results)
    assert {each["way"] for each in said} == {"today", "graph"} and {each["drafter"] for each in said} == {
        "bfloat16",
        "int4",
    }
    best = max(said, key=lambda each: each["to_target"])
    assert best["drafter"] == "int4" and best["acceptance"] == 0.9 and best["to_target"] > 1.5


def test_the_ways_of_attention_that_are_compared_agree():
    query = torch.randn(1, 4, 9, 64)
    key, value = (torch.randn(1, 2, 100, 64) for _ in "kv")
    for way in (gpu_check.folded, gpu_check.masked):
        assert gpu_check.relative(way(query, key, value, 0.1), gpu_check.today(query, key, value, 0.1)) < 1e-5
