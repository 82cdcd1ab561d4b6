"""InfiniteBench's English novels (arXiv 2402.13718): En.QA, En.MC and En.Sum, over 100,000 tokens and more.

A row is {"id", "context", "input", "answer": [...], "options": [...]}. Prompts, lengths and scores are the
benchmark's; rows over one novel follow one another here, so that it is prefilled once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rapid_integrations.errors import ConfigurationError, PromptError
from rapid_integrations.evaluation.metrics import infinitebench_choice, rouge, token_f1
from rapid_integrations.evaluation.tasks.base import CountTokens, Item, one_of
from rapid_integrations.evaluation.tasks.rows import Row, find_rows, require

SUBSETS = {"qa": "longbook_qa_eng", "mc": "longbook_choice_eng", "sum": "longbook_sum_eng"}
_METRIC = {"qa": "f1", "mc": "accuracy", "sum": "rougeLsum"}
_TOKENS = {"qa": 40, "mc": 40, "sum": 1200}
_OPENING = {
    "qa": "Read the book below and answer a question.\n\n",
    "mc": "Read the book and answer the question.\n\n",
    "sum": "Summarize the following book.\n\n",
}
_ONE_LETTER = (
    "Only one of the following options is correct, tell me the answer using one single letter (A, B, C, or D). "
    "Don't say anything else."
)


class InfiniteBench:
    """One of the three data sets.

    Args:
        subset: "qa", "mc" or "sum".
        data: the folder with the published files, or the file; None fetches it from the hub.
        letters: whether multiple-choice answers are constrained to the letters.
    """

    def __init__(self, subset: str, data: Path | None, letters: bool = False) -> None:
        if subset not in SUBSETS:
            raise ConfigurationError(f"infinitebench:{subset} is unknown; there are: {', '.join(SUBSETS)}")
        self.name = f"infinitebench:{subset}"
        self.metric = _METRIC[subset]
        self._subset = subset
        self._data = data
        self._letters = letters

    def documents(self, context_tokens: int, count_tokens: CountTokens) -> Iterator[Sequence[Item]]:
        """See `Task.documents`."""
        rows = find_rows(self._data, f"{SUBSETS[self._subset]}.jsonl", hub="xinrongzhang2022/InfiniteBench")
        books: dict[str, list[Item]] = {}
        for number, row in enumerate(rows):
            require(row, ("context", "input", "answer"), self.name)
            same = books.setdefault(row["context"], [])
            same.append(self._item(number, len(books) - 1 if not same else int(same[0].document_id), row))
        yield from books.values()

    def score(self, item: Item, answer: str) -> dict[str, float]:
        """See `Task.score`."""
        if self._subset == "qa":
            return {"f1": token_f1(answer, item.references)}
        if self._subset == "mc":
            return {"accuracy": float(infinitebench_choice(answer, item.references))}
        return rouge(answer, item.references)

    def _item(self, number: int, book: int, row: Row) -> Item:
        question = str(row["input"]).strip()
        answers = [row["answer"]] if isinstance(row["answer"], str) else list(row["answer"])
        after, query, form = "", "What happens in this book?", None
        if self._subset == "qa":
            after, query = f"\n\nQuestion: {question}\n\nBe very concise.", question
        if self._subset == "mc":
            require(row, ("options",), self.name)
            options = [str(option) for option in row["options"]]
            listed = "\n".join(f"{letter}. {option}" for letter, option in zip("ABCD", options, strict=True))
            after, query = f"\n\nQuestion: {question}\n\n{_ONE_LETTER}\n{listed}", f"{question}\n{listed}"
            answers = [_letter(answers, options, number), answers[0]]
            form = one_of("ABCD") if self._letters else None
        return Item(
            id=str(row.get("id", number)),
            document_id=str(book),
            document=row["context"],
            before=_OPENING[self._subset],
            after=after,
            query=query,
            references=tuple(answers),
            max_new_tokens=_TOKENS[self._subset],
            form=form,
        )


def _letter(answers: Sequence[str], options: Sequence[str], number: int) -> str:
    """Return the letter of the right option, which is given as the second entry or as the option's text."""
    if len(answers) == 2 and answers[1] in ("A", "B", "C", "D"):
        return answers[1]
    if answers[0] not in options:
        raise PromptError(f"row {number + 1} of infinitebench:mc: its answer {answers[0]!r} is not one of its options")
    return "ABCD"[options.index(answers[0])]
