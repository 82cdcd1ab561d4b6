"""`rapid bench proposers`: every proposer on the same questions, apart for each kind of answer."""

import json

import pytest

from rapid_integrations.benchmarks.proposers import CHEAP, SELF_DRAFTING, ProposerRun, ProposersBench, ProposersResult
from rapid_integrations.config import SpeculationConfig
from rapid_integrations.evaluation.questions import Question, load_questions
from rapid_integrations.outputs import DecodeStats
from tests.unit.benchmarks.conftest import summary

SHORT = ("--context", "700", "--new-tokens", "8")


@pytest.fixture
def kinds(folder):
    rows = [{"question": "where is the cat?", "kind": "quote"}, {"question": "what ran far?", "kind": "free"}]
    (folder / "kinds.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return ("--document", "document.md", "--questions", "kinds.jsonl")


def test_all_proposers_and_what_is_said_of_each(bench, kinds, tmp_path):
    picture = tmp_path / "plot.png"
    found = bench("proposers", *kinds, *SHORT, "--plot", str(picture), questions=False)
    figures = summary(found)
    assert list(figures["kinds"]) == ["quote", "free"] and figures["questions"] == 2
    for rows in figures["kinds"].values():
        assert set(rows) == {*CHEAP, *SELF_DRAFTING}
        for row in rows.values():
            assert row["same"] == row["answers"] == 1  # greedy answers do not depend on the proposer
            assert 1 <= row["tokens_per_pass"] and row["proposal_ms"] >= 0
            assert row["ratio"]["min"] <= row["ratio"]["median"] <= row["ratio"]["max"]
        assert rows["none"]["ratio"]["median"] == 1 and rows["none"]["acceptance"] is None
        assert rows["auto"]["used"] == "tree_hybrid"
    assert "a pass" in found.stdout and "tree_hybrid" in found.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_chosen_proposers_and_json_alone(bench):
    found = bench("proposers", *SHORT, "--max-questions", "1", "--proposers", "prompt_lookup", "--json")
    assert list(summary(found)["kinds"]["any"]) == ["none", "prompt_lookup"]
    assert len(found.stdout.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--proposers", "guesswork"), "no proposer is called 'guesswork'"),
        (("--law", "paper"), "there is nothing to compare"),
    ],
)
def test_errors_are_taught(bench, arguments, said):
    result = bench("proposers", *SHORT, *arguments)
    assert result.exit_code == 1 and said in " ".join(result.stderr.split()), result.stderr


class Engine:
    """Records what is asked of it."""

    class target:
        name, context_window, device = "toy", 4096, __import__("torch").device("cpu")

    drafter, draft_lm = target, object()

    class vocabulary:
        @staticmethod
        def offsets(document):
            return [(at, at + 1) for at in range(len(document))]

    def __init__(self):
        self.asked, self.forgotten = [], 0

    def count_tokens(self, prompt):
        return 10

    def clear_texts(self):
        self.forgotten += 1

    def generate(self, prompt, *, speculation, sampling):
        self.asked.append(speculation.proposer)

        class Answer:
            token_ids, stats = [1, 2], stats_of(0.5)

        return Answer()


def stats_of(seconds, tokens=11):
    known = {
        "law": "target", "eta": "auto", "proposer": "none", "segmentation": "explicit", "retrieval": None,
        "target": "toy", "drafter": None, "rounds": 10, "drafted_tokens": 4, "accepted_tokens": 1, "compress_s": 0.0,
        "prefill_s": 0.0, "time_to_first_token_s": 0.0, "decode_s": seconds, "propose_s": 0.1, "score_s": 0.0,
        "verify_s": 0.2, "tokens": tokens,
    }  # fmt: skip
    return DecodeStats.model_construct(**known)


def test_orders_alternate_and_no_answer_is_copied():
    engine = Engine()
    bench = ProposersBench(
        engine,
        speculation=SpeculationConfig(),
        context_tokens=500,
        new_tokens=8,
        repeats=2,
        on_progress=lambda *_: None,
        proposers=["drafter", "hybrid"],
    )
    bench.run([Question("a document", "what?")])
    names = ["none", "drafter", "hybrid"]
    assert engine.asked == [*names, *names, *names[::-1]]
    assert engine.forgotten == len(engine.asked)


def test_ratios_are_paired_by_question():
    result = ProposersResult("toy", "toy", {})
    for question, (alone, drafted) in enumerate([(2.0, 1.0), (8.0, 2.0)]):
        result.runs += [
            ProposerRun("hybrid", question, "free", (1,), stats_of(drafted)),
            ProposerRun("none", question, "free", (1, 2)[: question + 1], stats_of(alone)),
        ]
    assert result.proposers == ["none", "hybrid"]
    assert result.ratios("hybrid", "free") == pytest.approx([2.0, 4.0])
    assert result.same("hybrid", "free") == 1


def test_kinds_of_questions_are_read(folder, kinds):
    read = load_questions(folder / "kinds.jsonl", folder / "document.md", 5)
    assert [each.kind for each in read] == ["quote", "free"]
    assert load_questions(folder / "questions.jsonl", folder / "document.md", 1)[0].kind == ""
