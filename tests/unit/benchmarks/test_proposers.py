"""`rapid bench proposers`: all proposers on the same questions."""

import json

import pytest

from rapid_integrations.benchmarks.proposer_questions import built_in_questions
from rapid_integrations.proposers.retrieval_tree import RetrievalTree
from tests.unit.benchmarks.conftest import summary

SHORT = ("--context", "900", "--new-tokens", "8", "--max-questions", "2")
CHEAP = "prompt_lookup,retrieval_tree,adaptive"


def test_the_command(bench, folder, tmp_path):
    asked, picture = tmp_path / "asked.jsonl", tmp_path / "plot.png"
    asked.write_text(json.dumps({"question": "where?", "kind": "quote"}) + "\n" + json.dumps({"question": "who?"}))
    given = ("--document", "document.md", "--questions", str(asked), "--proposers", CHEAP, "--plot", str(picture))
    found = bench("proposers", *SHORT, *given, questions=False)
    figures = summary(found)
    assert list(figures["kinds"]) == ["quote", "free"] and figures["questions"] == 2
    for rows in figures["kinds"].values():
        assert list(rows) == ["target", "none", *CHEAP.split(",")]
        for name, row in rows.items():
            assert row["decode_tps"]["median"] > 0 and row["ratio"] > 0 and row["tokens_per_pass"] >= 1
            assert name == "target" or row["same"] == row["questions"] == 1
        assert rows["none"]["tokens_per_pass"] == 1.0
    assert "proposal ms" in found.stdout and picture.read_bytes().startswith(b"\x89PNG")


def test_what_cannot_run_is_left_out_with_the_reason_unless_it_was_asked_for(bench):
    figures = summary(bench("proposers", "--context", "700", "--new-tokens", "8", "--max-questions", "1", "--json"))
    assert "needs a model that proposes" in figures["skipped"]["draft_lm"] and "datastore" in figures["skipped"]
    assert "hybrid" in figures["kinds"]["free"]
    refused = bench("proposers", *SHORT, "--proposers", "draft_lm")
    assert refused.exit_code == 1 and "needs a model that proposes" in " ".join(refused.stderr.split())


@pytest.mark.parametrize("kind", ["quote", "free", "code"])
def test_built_in_questions_of_each_kind(kind):
    assert sum(each.kind == kind and len(each.document) > 2000 for each in built_in_questions()) == 2


def test_no_proposer_finds_an_earlier_answer(bench, monkeypatch):
    seen = []
    made = RetrievalTree.from_request.__func__

    def from_request(cls, request):
        seen.append(len(request.texts.of(request.target_ids)[0].answers))
        return made(cls, request)

    monkeypatch.setattr(RetrievalTree, "from_request", classmethod(from_request))
    bench("proposers", *SHORT, "--proposers", "retrieval_tree,adaptive")
    assert seen == [0] * 6  # a warm-up and two questions each
