"""Questions over documents, from JSON lines."""

import json
import re

import pytest

from rapid_integrations.errors import PromptError
from rapid_integrations.evaluation.questions import load_question_pairs, load_questions


@pytest.fixture
def published(tmp_path):
    """Three documents in L-Eval's format, with three, one and two questions."""
    path = tmp_path / "questions.jsonl"
    rows = [("one", ["a", "b", "c"]), ("two", ["d"]), ("three", ["e", "f"])]
    path.write_text("\n".join(json.dumps({"input": text, "instructions": asked}) for text, asked in rows) + "\n\n")
    return path


def asked(path, *arguments, **options):
    return [
        (each.document, each.question)
        for each in load_questions(path, path.parent / "unused.txt", *arguments, **options)
    ]


def test_few_questions_bring_many_documents(published):
    assert asked(published, 3) == [("one", "a"), ("two", "d"), ("three", "e")]
    assert asked(published, 4) == [("one", "a"), ("one", "b"), ("two", "d"), ("three", "e")]
    everything = [("one", "a"), ("one", "b"), ("one", "c"), ("two", "d"), ("three", "e"), ("three", "f")]
    assert asked(published, 100) == everything


def test_documents_may_be_limited(published):
    assert asked(published, 3, documents=1) == [("one", "a"), ("one", "b"), ("one", "c")]
    assert asked(published, 3, documents=2) == [("one", "a"), ("one", "b"), ("two", "d")]


def test_a_shared_document_is_read_once(tmp_path):
    (tmp_path / "text.txt").write_text("the text")
    path = tmp_path / "q.jsonl"
    path.write_text('{"question": "a"}\n{"question": "b", "document": "its own"}\n{"question": "c"}\n')
    found = load_questions(path, tmp_path / "text.txt", 3)
    assert [(q.document, q.question) for q in found] == [("the text", "a"), ("its own", "b"), ("the text", "c")]


def test_an_empty_file(tmp_path):
    (tmp_path / "q.jsonl").write_text("\n")
    with pytest.raises(PromptError, match="is empty"):
        load_questions(tmp_path / "q.jsonl", tmp_path, 1)


def test_a_separator_of_lines_within_a_text(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text('{"question": "a\u2028b?", "document": "one\x85two"}\n', encoding="utf-8")
    assert asked(path, 1) == [("one\x85two", "a\u2028b?")]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"question": 5}', 'line 1: expected {"question": text}'),
        ('{"question": " "}', "line 1: expected"),
        ('{"question": "a", "document": null}', "line 1: expected"),
        ('{"document": "a"}', "line 1: expected"),
        ('{"question": "a", "instructions": ["b"]}', "line 1: expected"),
        ('{"input": "a", "instructions": "b"}', "line 1: expected"),
        ('{"input": "a", "instructions": ["b", 3]}', "line 1: expected"),
        ('{"input": ["a"], "instructions": ["b"]}', "line 1: expected"),
        ("[" * 100_000, "line 1, is not JSON"),
        ("9" * 5_000, "line 1, is not JSON"),
        ('{"question": "a \\ud800 b"}', "line 1, holds half of a surrogate pair (\\ud800)"),
    ],
)
def test_what_is_no_question(tmp_path, line, said):
    path = tmp_path / "q.jsonl"
    path.write_text(line + "\n")
    for read in (load_questions, load_question_pairs):
        with pytest.raises(PromptError, match=re.escape(said)):
            read(path, tmp_path / "unused.txt", 2)


def test_a_whole_pair_of_surrogates_is_a_character(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text('{"question": "\\ud83d\\ude00?", "document": "text"}\n')
    assert asked(path, 1) == [("text", "\U0001f600?")]
