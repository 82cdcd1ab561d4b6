"""What of the GPU check runs without a GPU: the watcher, every stage on tiny shapes, and the model of speeds."""

import subprocess
import sys
import time

import pytest
import torch

from benchmarks import gpu_check
from benchmarks.gpu_stages import CONTEXTS, RETRIEVAL, ROWS, STAGES, Stage, attention, correctness
from benchmarks.gpu_stages.modelled import modelled
from tests.toys.repository import ROOT


def ended(folder):
    return {each["stage"]: each["ended"] for each in gpu_check.results_in(folder) if "ended" in each}


@pytest.mark.slow  # the child imports PyTorch anew
@pytest.mark.process
def test_a_stage_that_fails_or_takes_too_long_is_written_down_and_the_next_one_runs(tmp_path, monkeypatch):
    monkeypatch.setitem(STAGES, "env", Stage(0, "machine"))
    gpu_check.watch(["env", "law", "modelled"], tmp_path, 120)
    found = ended(tmp_path)
    assert list(found) == ["env", "law", "modelled"]
    assert found["env"] == "over 0 s" and found["modelled"] == "done"
    assert torch.cuda.is_available() or "Error" in found["law"]


@pytest.mark.slow
@pytest.mark.process
def test_every_stage_runs_dry_by_the_command_of_the_documentation(tmp_path):
    stages = [name for name in STAGES if name != "correctness"]  # whose tests are skipped without a GPU
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu_check.py"), "--out", str(tmp_path), "--seconds", "300"]
    subprocess.run([*command, "--dry", "--only", ",".join(stages)], cwd=tmp_path, check=True, capture_output=True)
    assert ended(tmp_path) == dict.fromkeys(stages, "done")
    results = gpu_check.results_in(tmp_path)
    assert [each for each in results if "failed" in each and each.get("form") != "fp8"] == []
    assert {each["stage"] for each in results if "ended" not in each} == set(stages)


@pytest.mark.long
@pytest.mark.process
def test_what_a_stage_has_started_ends_with_it(tmp_path):
    """A test that goes on in the background would be measured with the stages behind it."""
    child = f"import pathlib, time; time.sleep(4); pathlib.Path({str(tmp_path / 'late')!r}).touch()"
    code = f"import subprocess, sys; print('begun', flush=True); subprocess.run([sys.executable, '-c', {child!r}])"
    worker = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    assert worker.stdout.readline() == b"begun\n"
    gpu_check.end(worker)
    assert worker.wait() == -9
    time.sleep(5)
    assert not (tmp_path / "late").exists()
    worker.stdout.close()


@pytest.mark.long
@pytest.mark.process
def test_a_test_that_hangs_is_ended_and_what_it_printed_is_told():
    code = "import time; print('as far as this', flush=True); time.sleep(60)"
    ended, told = correctness.run([sys.executable, "-c", code], 10)
    assert ended == -9 and told.split("\n") == ["as far as this", "", "killed after 10 s"]
    assert correctness.run([sys.executable, "-c", "print('right')"], 60) == (0, "right\n")


def test_every_test_that_is_marked_gpu_runs_by_itself():
    found = correctness.functions()
    assert "tests/gpu/test_cuda.py::test_attention" in found and len(found) > 12
    assert [each for each in found if "enumeration" in each] == [
        "tests/laws/test_enumeration.py::test_two_real_devices"
    ]


def test_stages_are_where_the_table_says():
    for name, stage in STAGES.items():
        text = (ROOT / "benchmarks" / "gpu_stages" / f"{stage.module}.py").read_text()
        assert f"\ndef {name}(say: Say" in text
    assert sum(stage.seconds for stage in STAGES.values()) < 720


def test_speeds_are_modelled_from_steps():
    results = [
        {"stage": stage, "quantization": form, "length": length, "new": new, "today_ms": cost, "graph_ms": cost / 2}
        for stage, form, cost in (("steps", None, 20.0), ("steps_int4", "int4", 4.0))
        for length in (RETRIEVAL, *CONTEXTS)
        for new in ROWS
    ]
    results += [{"stage": "law", "law": "greedy auto", "position_ms": 0.7}, {"stage": "law", "rows_round_ms": 0.9}]
    said = []
    modelled(lambda **values: said.append(values), results)
    assert {(each["way"], round(each["law_ms"], 9)) for each in said} == {
        ("today", 0.7),
        ("today", 0.1),
        ("graph", 0.1),
    }
    assert {each["drafter"] for each in said} == {"bfloat16", "int4"}
    best = max(said, key=lambda each: each["to_target"])
    assert best["drafter"] == "int4" and best["acceptance"] == 0.9 and best["to_target"] > 1.5


def test_the_ways_of_attention_that_are_compared_agree():
    query = torch.randn(1, 4, 9, 64)
    key, value = (torch.randn(1, 2, 100, 64) for _ in "kv")
    for way in (attention.folded, attention.masked):
        assert attention.relative(way(query, key, value, 0.1), attention.today(query, key, value, 0.1)) < 1e-5
