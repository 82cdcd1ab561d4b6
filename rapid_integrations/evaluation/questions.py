"""Read questions over documents from JSON lines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rapid_integrations.documents import read_document, read_utf8
from rapid_integrations.errors import PromptError
from rapid_integrations.evaluation.tasks.rows import parsed


@dataclass(frozen=True)
class Question:
    """A question over a document. `kind` says what its answer is like; it is empty if nothing says so."""

    document: str
    question: str
    kind: str = ""


@dataclass(frozen=True)
class QuestionPair:
    """Two questions about one document."""

    document: str
    first: str
    second: str


def load_questions(path: Path, document: Path, limit: int, documents: int | None = None) -> list[Question]:
    """Read at most `limit` questions.

    A line is {"question": ...} about the text of `document`, or {"document": ..., "question": ...}, or the published
    format of L-Eval: {"input": document, "instructions": [question, ...]}. From these, the first instruction of every
    line is taken, then the second of every line, and so on, so that few questions cover many documents. Questions about
    one document follow one another. A line may also have a "kind".

    Args:
        path: JSON lines.
        document: the text of lines that have none.
        limit: maximum number of questions.
        documents: maximum number of L-Eval's lines; None takes all.

    Raises:
        PromptError: a file is missing, holds no question, or is malformed. The message names the line.
    """
    shared: str | None = None
    found: list[tuple[int, int, Question]] = []  # number within its line, the line, the question
    lines = 0
    for number, row in _rows(path):
        kind = str(row.get("kind", ""))
        if "instructions" in row:
            lines += 1
            if documents is None or lines <= documents:
                asked = enumerate(row["instructions"])
                found += [(i, number, Question(row["input"], each, kind)) for i, each in asked]
        elif "document" in row:
            found.append((0, number, Question(row["document"], row["question"], kind)))
        else:
            shared = read_document(document).text if shared is None else shared
            found.append((0, number, Question(shared, row["question"], kind)))
    if not found:
        raise PromptError(f"{path} holds no question: give one JSON object a line")
    taken = sorted(found, key=lambda entry: entry[:2])[:limit]
    return [question for *_, question in sorted(taken, key=lambda entry: (entry[1], entry[0]))]


def load_question_pairs(path: Path, document: Path, limit: int) -> list[QuestionPair]:
    """Read at most `limit` pairs: the first two questions of an L-Eval line, or two questions about the same text.

    Raises:
        PromptError: as for `load_questions`, or no document has two questions.
    """
    by_document: dict[str, list[str]] = {}
    for _, row in _rows(path):
        text = row["input"] if "instructions" in row else row.get("document") or read_document(document).text
        by_document.setdefault(text, []).extend(row["instructions"][:2] if "instructions" in row else [row["question"]])
    pairs = [
        QuestionPair(text, *questions[start : start + 2])
        for text, questions in by_document.items()
        for start in range(0, len(questions) - 1, 2)
    ]
    if not pairs:
        raise PromptError(f"{path} has no two questions about one document: give two lines without a document at least")
    return pairs[:limit]


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the lines that are not blank with their numbers."""
    # Not splitlines, because JSON strings may hold U+2028 and the like.
    for number, line in enumerate(read_utf8(path).split("\n"), 1):
        if not line.strip():
            continue
        row = parsed(line, f"{path}, line {number},")
        if not isinstance(row, dict) or not _is_question(row):
            raise PromptError(
                f'{path}, line {number}: expected {{"question": text}}, with a "document" or without, or {{"input": '
                'text, "instructions": [text, ...]}'
            )
        yield number, row


def _is_question(row: dict[str, Any]) -> bool:
    """Whether a line has its texts, and none of them is empty."""
    if "instructions" in row:
        asked = row["instructions"]
        return isinstance(asked, list) and all(map(_is_text, asked)) and _is_text(row.get("input"))
    return _is_text(row.get("question")) and ("document" not in row or _is_text(row["document"]))


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())
