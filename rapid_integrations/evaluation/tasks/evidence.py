"""Questions about real documents with annotated evidence: one JSON-lines file for each set.

A line is {"id", "document", "questions": [{"question", "answers": [...], "evidence", "choices": [...] or null}]}, the
format that `rapid eval retrieval` reads, too. `answers` are right answers; a set whose questions all have `choices` is
multiple choice, and an answer is one of its choices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from string import ascii_uppercase
from typing import Any

from rapid_integrations.errors import ConfigurationError, PromptError
from rapid_integrations.evaluation.metrics import exact_match, fact_recall, leval_letter, token_f1
from rapid_integrations.evaluation.tasks.base import CountTokens, Item, one_of
from rapid_integrations.evaluation.tasks.rows import Row, find_rows, require

_BEFORE = "Read the following document. A question about it comes at the end.\n\n"
_ASKS_SHORT = "Answer with a few words from the document and nothing else."
_ASKS_SENTENCE = "Answer in one or two sentences."
_ASKS_LETTER = "Answer with the letter of the right option and nothing else."
_SHORT_WORDS = 12  # the median of a set whose answers are names, numbers and phrases
_SHORT_TOKENS, _SENTENCE_TOKENS, _LETTER_TOKENS = 40, 96, 8


class EvidenceQuestions:
    """One set. Tables show token F1 ("f1"), or "accuracy" if every question of the set has choices.

    Other scores of free answers are "exact_match" and "contains" (whether a right answer stands in the answer). A set
    whose right answers have at most 12 words in the median asks for a few words, others for one or two sentences.

    Args:
        name: the set's name, such as "hotpotqa"; its file is `name`.jsonl.
        data: the folder with the sets, or the file.
        letters: whether answers to multiple-choice questions are constrained to the options' letters.

    Raises:
        PromptError: the file is missing or malformed, or a question has no right answer.
    """

    def __init__(self, name: str, data: Path | None, letters: bool = False) -> None:
        if data is None:
            raise ConfigurationError(
                f"evidence:{name} is read from your own files: give --data, the folder or the file"
            )
        self.name = f"evidence:{name}"
        self._letters = letters
        self._rows = self._read(name, data)
        questions = [asked for row in self._rows for asked in row["questions"]]
        self._choices = all(asked.get("choices") for asked in questions)
        lengths = [min(len(answer.split()) for answer in asked["answers"]) for asked in questions]
        self._short = median(lengths) <= _SHORT_WORDS
        self.metric = "accuracy" if self._choices else "f1"

    def documents(self, context_tokens: int, count_tokens: CountTokens) -> Iterator[Sequence[Item]]:
        """See `Task.documents`."""
        for number, row in enumerate(self._rows):
            yield [self._item(number, row, index) for index in range(len(row["questions"]))]

    def score(self, item: Item, answer: str) -> dict[str, float]:
        """See `Task.score`."""
        if self._choices:
            return {"accuracy": float(leval_letter(answer) == item.references[0])}
        return {
            "f1": token_f1(answer, item.references),
            "exact_match": exact_match(answer, item.references),
            "contains": max(fact_recall(answer, [reference]) for reference in item.references),
        }

    def _read(self, name: str, data: Path) -> list[Row]:
        rows = find_rows(data, f"{name}.jsonl", hub="")
        for number, row in enumerate(rows):
            require(row, ("document", "questions"), self.name)
            for asked in row["questions"]:
                require(asked, ("question", "answers"), f"{self.name}, document {number + 1}")
                _require_right_choice(asked, f"{self.name}, document {number + 1}")
        if not any(row["questions"] for row in rows):
            raise PromptError(f"{data}: {name}.jsonl has no question")
        return rows

    def _item(self, number: int, row: Row, index: int) -> Item:
        asked = row["questions"][index]
        form, references = None, tuple(asked["answers"])
        instruction, tokens = (_ASKS_SHORT, _SHORT_TOKENS) if self._short else (_ASKS_SENTENCE, _SENTENCE_TOKENS)
        question = asked["question"]
        if self._choices:
            options = dict(zip(ascii_uppercase, asked["choices"], strict=False))
            question += "".join(f"\n{letter}. {option}" for letter, option in options.items())
            references = (next(letter for letter, option in options.items() if option in asked["answers"]),)
            instruction, tokens = _ASKS_LETTER, _LETTER_TOKENS
            form = one_of(list(options)) if self._letters else None
        return Item(
            id=f"{number}.{index}",
            document_id=str(row.get("id", number)),
            document=row["document"],
            before=_BEFORE,
            after=f"\n\nQuestion: {question}\n{instruction}",
            query=asked["question"],
            references=references,
            max_new_tokens=tokens,
            form=form,
        )


def _require_right_choice(asked: Mapping[str, Any], where: str) -> None:
    choices, answers = asked.get("choices"), asked["answers"]
    if (
        not isinstance(answers, list)
        or not answers
        or not all(isinstance(answer, str) and answer.strip() for answer in answers)
    ):
        raise PromptError(f"{where}: {asked['question']!r} has no right answer; answers is a list of texts")
    if choices and not any(choice in answers for choice in choices):
        raise PromptError(f"{where}: no choice of {asked['question']!r} is among its answers {answers}")
