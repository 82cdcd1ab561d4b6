"""`rapid bench question`: every engine in processes of its own, and what its table and picture show."""

import json
import sys

import pytest

from rapid_integrations.benchmarks.question import OWN_METHODS, QuestionBench
from rapid_integrations.benchmarks.question_report import question_plot, question_table
from rapid_integrations.benchmarks.waits import PARTS, RUNS, STAGES
from rapid_integrations.config import SpeculationConfig
from rapid_integrations.engine.engine import RapidEngine
from rapid_integrations.errors import ConfigurationError, PromptError
from rapid_integrations.evaluation.questions import QuestionPair, load_question_pairs
from tests.toys.models import words
from tests.unit.benchmarks.conftest import summary

SAYS = """
import json, os, sys
told = json.load(open(sys.argv[1]))
method, run = told["method"], told["run"]
runs = {"cold": ["cold"], "warm": ["first", "second"], "ahead": ["ahead"], "restart": ["restart"]}
assert os.environ["OMP_NUM_THREADS"] == str(told["threads"])
if method == "llama_cpp" and run == "warm":
    sys.exit("out of memory")
if method == "transformers_assisted":
    print(json.dumps({"failed": "pip install it"}))
    sys.exit()
if method == "openvino":  # it has no files
    assert told["files"] is None and run != "restart"
elif run == "ahead":
    open(os.path.join(told["files"], "rows"), "w").write(method)
if run == "restart":
    assert open(os.path.join(told["files"], "rows")).read() == method
seconds = {"cold": 8.0, "first": 4.0, "ahead": 0.5, "second": 1.0, "restart": 2.0}
slower = {"rapid": 1, "target": 2}.get(method, 3)
waits = {}
for stage in runs[run]:
    s = slower * seconds[stage]
    parts = {"prefill": s / 2} | ({"imports": s / 4, "load": s / 4} if stage in ("cold", "restart") else {})
    tokens = len(told["prompts"][stage in ("second", "restart")])
    waits[stage] = dict(first_token_s=s, parts=parts, first_token_cpu_s=s, total_s=s + 1, tokens=3,
                        prompt_tokens=tokens, cached_tokens=None)
print("a line of a log")
print(json.dumps({"waits": waits, "settings": {"threads": told["threads"], "shared": len(told["shared"])}}))
"""


@pytest.mark.process
def test_the_engines_take_turns_and_what_they_lack_is_said(folder, tmp_path):
    """With a small process for each engine: who is asked what, what a failure leaves, and what is shown."""
    begun = []

    def start():
        return RapidEngine.from_pretrained(str(folder / "model"), embedder=str(folder / "embedder"), dtype="float32")

    bench = QuestionBench(
        start,
        [sys.executable, "-I", "-S", "-c", SAYS],
        {"engine": {}, "target": "model", "drafter": None, "kv_cache": None},
        tmp_path,
        speculation=SpeculationConfig(),
        context_tokens=600,
        new_tokens=4,
        on_progress=lambda stage, done, total: begun.append((done, total)),
        peers=["transformers", "transformers_assisted", "openvino", "llama_cpp"],
    )
    result = bench.run([QuestionPair(words(1, 600), "where is it?", "who ran?")] * 2)
    assert begun[0] == (0, 48) and begun[-1] == (48, 48)
    found = json.loads(json.dumps(result.summary()))
    assert found["pairs"] == 2 and found["prompt_tokens"]["max"] <= 600
    assert list(found["methods"]) == ["rapid", "target", "transformers", "openvino", "llama_cpp"]
    assert list(found["methods"]["rapid"]) == list(STAGES)
    assert found["methods"]["target"]["restart"]["of_rapid"]["first_token_s"]["median"] == 2
    assert found["methods"]["target"]["restart"]["of_cold"]["first_token_s"]["median"] == 0.25
    assert found["methods"]["target"]["ahead"]["of_first"]["first_token_s"]["median"] == 0.125
    assert set(found["methods"]["transformers"]) == {"cold", "first", "second"}
    assert set(found["methods"]["openvino"]) == {"cold", "first", "ahead", "second"}
    assert set(found["methods"]["llama_cpp"]) == {"cold"}
    assert (
        found["skipped"]["transformers_assisted"] == "pip install it"
        and "out of memory" in found["skipped"]["llama_cpp"]
    )
    shared = found["settings"]["rapid"]["shared"]
    assert 0.8 * found["prompt_tokens"]["min"] < shared < found["prompt_tokens"]["min"]
    table = question_table(result)
    assert table.row_count == len(STAGES) * 6
    said = " ".join(table.caption.split())
    assert "transformers, after restart: transformers' generate keeps nothing of a prompt." in said
    assert "transformers + drafter: left out, pip install it." in said
    assert "target alone: read ahead 12.5% of the first question (12.5-12.5)" in said
    question_plot(result, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.process
def test_a_failure_of_this_engine_ends_the_benchmark(folder, tmp_path):
    bench = QuestionBench(
        lambda: RapidEngine.from_pretrained(str(folder / "model"), embedder=str(folder / "embedder")),
        [sys.executable, "-I", "-S", "-c", "raise SystemExit('no memory')"],
        {},
        tmp_path,
        speculation=SpeculationConfig(),
        context_tokens=600,
        new_tokens=4,
        on_progress=lambda *report: None,
    )
    with pytest.raises(ConfigurationError, match="exit status 1: no memory"):
        bench.run([QuestionPair(words(1, 600), "where is it?", "who ran?")])


@pytest.mark.slow  # its two halves are tested above and in test_question_child; here are ten processes
@pytest.mark.process
def test_the_whole_command(bench, tmp_path, monkeypatch):
    monkeypatch.setenv("RAPID_NATIVE", "0")
    picture = tmp_path / "plot.png"
    options = ["--context", "2500", "--new-tokens", "8", "--max-pairs", "1", "--peers", "transformers"]
    found = summary(bench("question", *options, "--scratch", str(tmp_path), "--plot", str(picture)))
    for method in OWN_METHODS:
        stages = found["methods"][method]
        assert list(stages) == list(STAGES)
        for stage in ("ahead", "second", "restart"):
            assert stages[stage]["cached_share"] > 0.95
        for stage in ("cold", "restart"):
            assert set(stages[stage]["parts"]) == set(PARTS)
            assert stages[stage]["parts"]["imports"] > 0.1
    assert set(found["methods"]["transformers"]) == {"cold", "first", "second"} and not found["skipped"]
    assert [path.name for path in tmp_path.iterdir()] == ["plot.png"]


def test_every_stage_is_measured_by_one_run():
    assert sorted(stage for stages in RUNS.values() for stage in stages) == sorted(STAGES)


def test_pairs(tmp_path):
    lines = [
        {"question": "a"},
        {"input": "long", "instructions": ["b", "c", "d"]},
        {"question": "e"},
        {"document": "own", "question": "f"},
        {"question": "g"},
    ]
    path, document = tmp_path / "questions.jsonl", tmp_path / "document.md"
    path.write_text("\n".join(json.dumps(line) for line in lines))
    document.write_text("shared")
    pairs = [(pair.document, pair.first, pair.second) for pair in load_question_pairs(path, document, 9)]
    assert pairs == [("shared", "a", "e"), ("long", "b", "c")]
    assert len(load_question_pairs(path, document, 1)) == 1
    path.write_text(json.dumps({"question": "a"}))
    with pytest.raises(PromptError, match="no two questions about one document"):
        load_question_pairs(path, document, 9)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--context", "256", "--new-tokens", "8180"), "has no room for a document"),
        (("--scratch", "nowhere"), "nothing can be written to nowhere"),
        (("--peers", "vllm"), "no peer is called 'vllm'"),
    ],
)
def test_errors_are_taught(bench, arguments, said):
    result = bench("question", *arguments)
    assert result.exit_code == 1 and said in " ".join(result.stderr.split()), result.stderr
