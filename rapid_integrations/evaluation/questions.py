"""Questions over documents, read from JSON lines."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rapid_integrations.documents import read_document, read_utf8
from rapid_integrations.errors import PromptError


@dataclass(frozen=True)
class Question:
    """A question over a document."""

    document: str
    question: str


@dataclass(frozen=True)
class QuestionPair:
    """Two questions about one document."""

    document: str
    first: str
    second: str


def load_questions(path: Path, document: Path, limit: int) -> list[Question]:
    """Read at most `limit` questions.

    A line is {"question": ...} about the text of `document`, or {"document": ..., "question": ...}, or the published
    format of L-Eval: {"input": document, "instructions": [question, ...]}, of which the first counts, so that several
    lines bring several documents.

    Raises:
        PromptError: a file that is missing, holds no question, or is malformed, with the line.
    """
    shared: str | None = None
    questions: list[Question] = []
    for number, line in enumerate(read_utf8(path).splitlines(), 1):
        if len(questions) == limit or not line.strip():
            continue
        row = _parse(line, path, number)
        if "instructions" in row:
            questions.append(Question(row["input"], row["instructions"][0]))
        elif "document" in row:
            questions.append(Question(row["document"], row["question"]))
        else:
            shared = read_document(document).text if shared is None else shared
            questions.append(Question(shared, row["question"]))
    if not questions:
        raise PromptError(f"{path} holds no question: give one JSON object a line")
    return questions


def load_question_pairs(path: Path, document: Path, limit: int) -> list[QuestionPair]:
    """Read at most `limit` pairs; of an L-Eval line its first two questions, else questions about the same text.

    Raises:
        PromptError: see `load_questions`; or no document has two questions.
    """
    by_document: dict[str, list[str]] = {}
    for number, line in enumerate(read_utf8(path).splitlines(), 1):
        if line.strip():
            row = _parse(line, path, number)
            text = row["input"] if "instructions" in row else row.get("document") or read_document(document).text
            by_document.setdefault(text, []).extend(row.get("instructions", [])[:2] or [row["question"]])
    pairs = [
        QuestionPair(text, *questions[start : start + 2])
        for text, questions in by_document.items()
        for start in range(0, len(questions) - 1, 2)
    ]
    if not pairs:
        raise PromptError(f"{path} has no two questions about one document: give two lines without a document at least")
    return pairs[:limit]


def _parse(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise PromptError(f"{path}, line {number}, is no JSON: {error}") from error
    if isinstance(row, dict) and ("question" in row or {"input", "instructions"} <= row.keys()):
        return row
    raise PromptError(f'{path}, line {number}: expected {{"question": ...}} or {{"input": ..., "instructions": [...]}}')
