"""Your own questions: JSON lines of {"document", "question", "answer"}."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from rapid_integrations.documents import read_document
from rapid_integrations.errors import PromptError
from rapid_integrations.evaluation.metrics import exact_match, fact_recall, token_f1
from rapid_integrations.evaluation.tasks.base import CountTokens, Item
from rapid_integrations.evaluation.tasks.rows import read_rows

_BEFORE = "Use the following document to answer the question at the end.\n\n"


class OwnQuestions:
    """Questions from a file.

    A line holds "question", "answer" (a string, or a list of right answers) and the document. The document is a text
    ("document") or the name of a text file beside the questions ("file"). A line with neither is about the document
    that all such lines share. The scores are token F1 ("f1", shown in tables), "exact_match", and "contains" (whether
    the answer contains a right answer).

    Args:
        path: the file.
        shared: the text file of lines without a document.
        max_new_tokens: maximum length of an answer.
    """

    metric = "f1"

    def __init__(self, path: Path, shared: Path | None = None, max_new_tokens: int = 64) -> None:
        self.name = f"own:{path.stem}"
        self._path = path
        self._shared = shared
        self._max_new_tokens = max_new_tokens

    def documents(self, context_tokens: int, count_tokens: CountTokens) -> Iterator[Sequence[Item]]:
        """See `Task.documents`. Lines over one document need not follow one another."""
        items = [self._item(number, row) for number, row in enumerate(read_rows(self._path))]
        order = {text: number for number, text in reversed(list(enumerate(item.document for item in items)))}
        items.sort(key=lambda item: order[item.document])  # stable: the file's order within a document stays
        for _, of_document in groupby(items, key=lambda item: item.document):
            yield list(of_document)

    def score(self, item: Item, answer: str) -> dict[str, float]:
        """See `Task.score`."""
        return {
            "f1": token_f1(answer, item.references),
            "exact_match": exact_match(answer, item.references),
            "contains": max(fact_recall(answer, [reference]) for reference in item.references),
        }

    def _item(self, number: int, row: dict[str, object]) -> Item:
        given = row.get("answer")
        answers = [given] if isinstance(given, str) else given
        texts = isinstance(answers, list) and answers and all(isinstance(a, str) and a.strip() for a in answers)
        if not texts or not isinstance(question := row.get("question"), str) or not question.strip():
            raise PromptError(
                f'{self._path}, question {number + 1}: expected {{"document": text, "question": text, "answer": text '
                f"or list of texts}}; found {_shown(row)}"
            )
        assert isinstance(answers, list)
        document, source = self._document(number, row)
        return Item(
            id=str(number),
            document_id=source,
            document=document,
            before=_BEFORE,
            after=f"\n\nQuestion: {question}\nAnswer briefly.",
            query=question,
            references=tuple(answers),
            max_new_tokens=self._max_new_tokens,
        )

    def _document(self, number: int, row: dict[str, object]) -> tuple[str, str]:
        if isinstance(name := row.get("file"), str):
            return read_document(self._path.parent / name).text, name
        if isinstance(text := row.get("document"), str) and text.strip():
            return text, f"{len(text)}:{text.strip()[:24]}"
        if not {"document", "file"} & row.keys() and self._shared is not None:
            return read_document(self._shared).text, self._shared.name
        raise PromptError(
            f'{self._path}, question {number + 1}, has no document: give its text as "document", its name as "file", '
            "or the text that all questions are about as --data"
        )


def _shown(row: dict[str, object]) -> str:
    """Return what a line holds: a text by its name alone, anything else and an empty text with it."""
    short = [
        name if isinstance(value, str) and value.strip() else f"{name} = {json.dumps(value)[:40]}"
        for name, value in row.items()
    ]
    return ", ".join(short) or "nothing"
