"""Questions over documents, from JSON lines."""

import json

import pytest

from rapid_integrations.errors import PromptError
from rapid_integrations.evaluation.questions import load_questions


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
