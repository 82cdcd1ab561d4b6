"""`rapid bench start`: the whole command, from the start of its process to its end."""

import itertools
import json
import sys

import pytest

from rapid_integrations.benchmarks import start
from rapid_integrations.benchmarks.start import CASES, PARTS, measure_starts, start_table
from rapid_integrations.cli.start_child import main
from rapid_integrations.errors import ConfigurationError

pytestmark = pytest.mark.process

SAYS = """
import json, sys, time
told = json.loads(sys.argv[1])
ended = {part: time.perf_counter() for part in PARTS if told["question"] or part in ("interpreter", "models")}
print("something else")
print(json.dumps({"ended": ended, "prompt_tokens": 9, "cached_tokens": 5 if told["question"] == "Who?" else 0}))
"""


def test_the_runs_of_each_case(tmp_path):
    child = [sys.executable, "-I", "-S", "-c", SAYS.replace("PARTS", repr(list(PARTS)))]
    seen = []
    result = measure_starts(child, {"engine": {}}, ["What?", "Who?"], tmp_path, 2, lambda *report: seen.append(report))
    assert [done for _, done, _ in seen] == list(range(6)) and {total for _, _, total in seen} == {5}
    assert {case: len(runs) for case, runs in result.starts.items()} == {"unchecked": 1, "first": 1, "again": 2}
    for run in itertools.chain(*result.starts.values()):
        assert list(run.parts) == list(PARTS) and all(seconds >= 0 for seconds in run.parts.values())
        assert run.wall_s == pytest.approx(sum(run.parts.values()))
        assert 0 < run.parts["interpreter"] < run.first_token_s < run.wall_s
    assert result.summary()["cases"]["first"]["cached_tokens"] == 0
    assert result.summary()["cases"]["again"]["cached_tokens"] == 5
    table = start_table(result)
    assert table.row_count == len(PARTS) + 3
    assert [column.header for column in table.columns] == ["part", *CASES.values()]


def test_a_child_says_when_each_part_had_ended(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")  # it sets it otherwise
    engine = {"target": str(folder / "model"), "embedder": str(folder / "embedder")}
    asked = {"document": str(folder / "document.md"), "new_tokens": 4, "engine": engine}
    asked["prefix_cache_dir"] = str(tmp_path)
    loaded, first, again = (main({**asked, "question": question}) for question in (None, "What?", "Who?"))
    assert list(loaded["ended"])[-1] == "models" and loaded["prompt_tokens"] == 0
    for said in (first, again):
        assert list(said["ended"]) == [part for part in PARTS if part != "exit"]
        times = list(said["ended"].values())
        assert times == sorted(times)
    assert (first["cached_tokens"], again["cached_tokens"] > 1000) == (0, True)


@pytest.mark.slow  # its two halves are tested above; here are five processes
def test_every_part_of_a_run_is_measured(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("RAPID_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RAPID_NATIVE", "0")
    asked = {
        "document": str(folder / "document.md"),
        "new_tokens": 4,
        "engine": {"target": str(folder / "model"), "embedder": str(folder / "embedder")},
    }
    seen = []
    child = [sys.executable, "-m", "rapid_integrations.cli.start_child"]
    scratch = tmp_path / "scratch"
    result = measure_starts(child, asked, ["What?", "Who?"], scratch, 2, lambda *report: seen.append(report))
    assert seen[0] == ("measure", 0, 5) and seen[-1] == ("measure", 5, 5)
    summary = json.loads(json.dumps(result.summary()))
    assert summary["machine"]["threads"] >= 1
    assert summary["benchmark"] == "start" and list(summary["cases"]) == list(CASES)
    for case, found in summary["cases"].items():
        assert found["runs"] == (2 if case == "again" else 1)
        assert list(found["parts"]) == list(PARTS)
        assert all(
            found["parts"][part] > 0 for part in ("interpreter", "torch", "models", "retrieval", "answer", "exit")
        )
        assert all(seconds >= 0 for seconds in found["parts"].values())
        assert 0 < found["first_token_s"] < found["wall_s"]
        assert found["cpu_s"] > 0
    (first,), again = result.starts["first"], result.starts["again"]
    assert first.wall_s == pytest.approx(sum(first.parts.values()))
    assert first.cached_tokens == 0
    assert all(run.cached_tokens > 1000 for run in again)  # the document was on disk
    assert (scratch / "documents" / "embeddings.sqlite").exists()  # and so were its embeddings


def test_a_process_that_fails_is_an_error(tmp_path):
    child = [sys.executable, "-c", "raise SystemExit('no such model')"]
    with pytest.raises(ConfigurationError, match="exit status 1: no such model"):
        measure_starts(child, {"engine": {}}, ["What?", "Who?"], tmp_path, 1)


def test_one_question_is_not_enough(bench):
    found = bench("start", "--document", "document.md", "-q", "What?", questions=False)
    assert found.exit_code == 1
    assert "1 questions were given: give two, or none" in " ".join(found.stderr.split())


@pytest.mark.parametrize("options", [(), ("--quantization", "int8"), ("--kv-dtype", "int8", "--dtype", "bfloat16")])
def test_the_child_takes_what_the_command_tells_it(bench, tmp_path, monkeypatch, options):
    told = []

    def measured(child, asked, questions, scratch, runs, progress):
        told.append(json.loads(json.dumps({**asked, "question": None, "prefix_cache_dir": str(tmp_path)})))
        raise ConfigurationError("told")

    monkeypatch.setattr(start, "measure_starts", measured)
    assert "told" in bench("start", "--document", "document.md", *options, questions=False).stderr
    assert main(told[0])["prompt_tokens"] == 0  # it has loaded the models
