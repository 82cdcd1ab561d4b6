"""`rapid bench question`: first question, second question, and the second after a restart."""

import json

import pytest

from rapid_integrations.errors import PromptError
from rapid_integrations.evaluation.questions import load_question_pairs
from tests.unit.benchmarks.conftest import summary


def test_what_is_kept_is_not_read_again(bench, tmp_path):
    picture = tmp_path / "plot.png"
    found = bench(
        "question", "--context", "2500", "--new-tokens", "8", "--scratch", str(tmp_path), "--plot", str(picture)
    )
    figures = summary(found)
    assert figures["pairs"] == 2 and figures["prompt_tokens"]["max"] <= 2500
    assert set(figures["methods"]) == {"rapid", "target", "transformers"}
    for method in ("rapid", "target"):
        stages = figures["methods"][method]
        assert stages["first"]["cached_share"] == 0
        for stage in ("ahead", "second", "restart"):
            assert stages[stage]["cached_share"] > 0.95
            assert stages[stage]["target_s"] > 0
            assert set(stages[stage]["percent_of_first"]) == {"target_s", "first_token_s", "total_s"}
        for row in stages.values():
            parts = row["retrieval_s"] + row["target_s"] + row["drafter_s"] + row["first_round_s"]
            assert parts <= 1.1 * row["first_token_s"] <= 1.1 * row["total_s"]
    assert figures["methods"]["rapid"]["first"]["drafter_s"] > 0 < figures["methods"]["rapid"]["first"]["retrieval_s"]
    assert figures["methods"]["target"]["first"]["drafter_s"] == 0
    assert set(figures["methods"]["transformers"]) == {"first", "second"}
    assert "to first question: target's share" in " ".join(found.stdout.split())
    assert [path.name for path in tmp_path.iterdir()] == ["plot.png"]
    assert picture.read_bytes().startswith(b"\x89PNG")


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
