"""`rapid bench decode`: every method beside the others, those that cannot run with the reason."""

import pytest

from rapid_integrations import SpeculationConfig
from rapid_integrations.benchmarks.decode import DecodeBench
from rapid_integrations.evaluation.questions import Question
from rapid_integrations.progress import ignore_progress
from tests.toys.engines import DOCUMENT, engine
from tests.unit.benchmarks.conftest import summary

SHORT = ("--context", "1500", "--new-tokens", "12", "--max-questions", "2")
OWN = ["target", "target_lookup", "drafter", "sd_full", "rapid"]


def test_the_methods_and_what_is_said_of_each(bench, tmp_path):
    picture = tmp_path / "plot.png"
    found = bench("decode", *SHORT, "--repeats", "2", "--plot", str(picture))
    figures = summary(found)
    assert list(figures["methods"]) == ["transformers", "transformers_lookup", *OWN]
    assert set(figures["skipped"]) == {"transformers_assisted", "openvino", "llama_cpp"}
    assert "--drafter" in figures["skipped"]["transformers_assisted"]
    for row in figures["methods"].values():
        speed = row["decode_tps"]
        assert 0 < speed["min"] <= speed["q1"] <= speed["median"] <= speed["q3"] <= speed["max"]
    assert all(0 <= figures["methods"][name]["outside_forward"] <= 1 for name in OWN)
    assert figures["prompt_tokens"]["max"] <= 1500 and figures["questions"] == 2
    assert {"rapid/target", "rapid/transformers", "target/transformers_lookup"} <= set(figures["ratios"])
    assert figures["bound"]["tps"] > 0 and figures["bound"]["limit"] in found.stdout
    assert figures["machine"]["threads"] >= 1 and figures["settings"]["transformers"]["dtype"]
    assert "left out" in found.stdout and "4-grams" in found.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_all_greedy_methods_of_the_target_agree(bench, folder):
    """Methods that only draft differently write the same answer, so as many tokens of it."""
    figures = summary(bench("decode", *SHORT, "--drafter", "./smaller", "--law", "target", "--json"))
    assert "transformers_assisted" in figures["methods"]
    lengths = {
        name: figures["methods"][name]["tokens"]
        for name in ("transformers_assisted", "transformers_lookup", "target", "target_lookup", "sd_full", "rapid")
    }
    assert len(set(lengths.values())) == 1, lengths


def test_no_peers(bench):
    figures = summary(bench("decode", *SHORT, "--peers", "none", "--json"))
    assert list(figures["methods"]) == OWN and figures["skipped"] == {}


def test_the_target_in_other_forms(bench):
    found = bench("decode", *SHORT, "--peers", "none", "--also", "int8,int4", "--dtype", "bfloat16")
    figures = summary(found)
    assert list(figures["methods"]) == ["target", "target_int8", "target_int4", *OWN[1:]]
    assert figures["settings"]["target_int4"]["weights_mb"] <= figures["settings"]["engine"]["weights_mb"]
    assert figures["fastest_plain"] in ("target", "target_int8", "target_int4")
    assert f"rapid/{figures['fastest_plain']}" in figures["ratios"]
    assert "The fastest without drafts is" in found.stdout


def test_a_json_line_alone(bench):
    assert len(bench("decode", *SHORT, "--peers", "none", "--json").stdout.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--peers", "transformers,lama"), "no peer is called 'lama'"),
        (("--also", "int8,int2"), "unknown int2; use plain, int8, int4"),
        (("--questions", "embedder/config.json"), "is not JSON"),
        (("--questions", "missing.jsonl"), "missing.jsonl cannot be read"),
        (("--context", "256", "--new-tokens", "8180"), "has no room for a document"),
        (("--context", "256", "--new-tokens", "9000"), "no room for a prompt beside --new-tokens 9,000"),
        (("--plot", "nowhere/plot.png", "--peers", "none", *SHORT), "cannot be written"),
    ],
)
def test_errors_are_taught(bench, arguments, said):
    result = bench("decode", *arguments)
    assert result.exit_code == 1
    assert said in " ".join(result.stderr.split()), result.stderr


def test_no_run_copies_the_answer_of_an_earlier_one():
    with engine() as shared:
        bench = DecodeBench(
            shared,
            speculation=SpeculationConfig(law="target", proposer="retrieval_tree", draft_length=4),
            context_tokens=800,
            new_tokens=32,
            repeats=3,
            on_progress=ignore_progress,
            methods=("target", "rapid"),
        )
        rounds = [each.rounds for each in bench.run([Question(DOCUMENT, "which words?")]).stats("rapid")]
        assert len(set(rounds)) == 1, rounds
