"""Evidence recall, precision, the loader and the report."""

import json

import pytest

from rapid_integrations.compression import Compressor
from rapid_integrations.config import CompressionConfig
from rapid_integrations.errors import ConfigurationError, PromptError
from rapid_integrations.evaluation.evidence import (
    EvidenceDocument,
    EvidenceQuestion,
    evidence_precision,
    evidence_recall,
    measure,
    read_sets,
    require_names,
    retrieval_settings,
)
from rapid_integrations.evaluation.evidence_report import cost_table, draw_recall, recall_table, summarise
from tests.toys.embedder import HashEmbedder
from tests.toys.offsets import WordTokenizer

PASSAGE = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"  # ten sequences


def test_seven_of_ten_sequences_are_found():
    words = PASSAGE.split()
    assert evidence_recall([PASSAGE], " ".join(words[:11])) == 1.0
    assert evidence_recall([PASSAGE], " ".join(words[:10])) == 0.0
    assert evidence_recall([PASSAGE, "other words that are not there"], f"before {PASSAGE} behind") == 0.5


def test_a_short_passage_is_one_sequence():
    assert evidence_recall(["two words"], "exactly two words here") == 1.0
    assert evidence_recall(["two words"], "two other words") == 0.0
    assert evidence_recall(["two words"], "") == 0.0
    assert evidence_recall([" "], "text") == 1.0  # nothing was to be found


def test_precision_is_the_share_of_words_in_evidence():
    assert evidence_precision([PASSAGE], PASSAGE) == 1.0
    assert evidence_precision([PASSAGE], f"{PASSAGE} {'other ' * 14}") == 0.5
    assert evidence_precision(["two words"], "exactly two words here") == 0.5
    assert evidence_precision([PASSAGE], "") == evidence_precision([PASSAGE], "one two three four") == 0.0


def test_sets_are_read_by_file(tmp_path):
    row = {
        "id": "x",
        "document": "text",
        "questions": [
            {"question": "a?", "evidence": "first\n---\nsecond"},
            {"question": "b?", "evidence": ["third"]},
            {"question": "c?", "evidence": ""},
            {"question": "d?"},
        ],
    }
    (tmp_path / "one.jsonl").write_text(json.dumps(row))
    (tmp_path / "none.jsonl").write_text(json.dumps({"document": "text", "questions": [{"question": "a?"}]}))
    asked = (EvidenceQuestion("a?", ("first", "second")), EvidenceQuestion("b?", ("third",)))
    assert read_sets(tmp_path) == {"one": [EvidenceDocument("x", "text", asked)]}
    assert read_sets(tmp_path / "one.jsonl").keys() == {"one"}
    with pytest.raises(PromptError, match="no question with evidence"):
        read_sets(tmp_path / "none.jsonl")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"document": "text"}, "lacks questions"),
        ({"document": 1, "questions": []}, "a text as document"),
        ({"document": "text", "questions": ["a?"]}, "needs a text as question"),
        ({"document": "text", "questions": [{"question": "a?", "evidence": 3}]}, "a text or a list of texts"),
    ],
)
def test_malformed_sets_are_refused(tmp_path, row, said):
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps(row))
    with pytest.raises(PromptError, match=said):
        read_sets(path)


def test_settings_by_name():
    assert retrieval_settings("default") == CompressionConfig()
    assert retrieval_settings("paper,chunk_tokens=256") == CompressionConfig(preset="paper", chunk_tokens=256)
    assert retrieval_settings("search=words,threshold=None,neighbours=0.5").neighbours == 0.5
    with pytest.raises(ConfigurationError, match="chunk_size"):
        retrieval_settings("chunk_size=256")
    with pytest.raises(ConfigurationError, match="given twice"):
        require_names(["paper", "paper"])


def test_a_measured_set(tmp_path):
    subjects = "apple banana cherry damson elder fig grape hazel iris juniper kiwi nut".split()
    paragraphs = [" ".join([subject] * 16) for subject in subjects]
    text = "\n\n".join(paragraphs)
    asked = tuple(EvidenceQuestion(f"{subjects[n]}?", (paragraphs[n],)) for n in (1, 6))
    sets = {"fruit": [EvidenceDocument("x", text, asked)], "rest": [EvidenceDocument("y", text[:-40], asked[:1])]}
    settings = {name: retrieval_settings(f"{name},chunk_tokens=16,min_chunks=1") for name in ("default", "paper")}
    made, seen = [], []

    def compressor():
        made.append(Compressor(HashEmbedder(), WordTokenizer()))
        return made[-1]

    found = list(measure(sets, settings, compressor, lambda *report: seen.append(report)))
    assert len(made) == 2 and len(found) == 6 and seen[-1] == ("retrieve", 6, 6)
    assert [each.recall for each in found] == [1.0] * 6
    assert all(0 < each.precision <= 1 and each.share <= 0.25 and each.seconds > 0 for each in found)
    assert [each.first for each in found[:3]] == [True, False, True]
    tables = summarise(found)
    fruit, average = tables["default"]["fruit"], tables["default"]["average"]
    assert fruit["questions"] == 2 and fruit["recall"] == 1.0 and average["questions"] == 3
    assert tables["default"]["rest"]["question_s"] is None and average["question_s"] == fruit["question_s"]
    assert recall_table(tables).row_count == 3 and cost_table(tables).row_count == 2
    pytest.importorskip("matplotlib")
    draw_recall(tables, tmp_path / "deep" / "recall.png")
    assert (tmp_path / "deep" / "recall.png").stat().st_size > 1000
