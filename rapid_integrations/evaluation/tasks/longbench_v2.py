"""LongBench v2 (arXiv 2412.15204): 503 multiple-choice questions, each over a document of its own.

A row is {"_id", "domain", "sub_domain", "difficulty", "length", "question", "choice_A" ... "choice_D", "answer",
"context"}; difficulty is easy or hard, length short, medium or long. Prompts and the parsing of answers are the
benchmark's. With chain of thought, the model first reasons over the document. Then it is asked for the letter without
the document, as in the benchmark.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rapid_integrations.evaluation.metrics import longbench_v2_letter
from rapid_integrations.evaluation.tasks.base import CountTokens, Item, one_of
from rapid_integrations.evaluation.tasks.rows import Row, find_rows, require

_KEYS = ("_id", "difficulty", "length", "question", "choice_A", "choice_B", "choice_C", "choice_D", "answer", "context")
_FORMAT = 'Format your response as follows: "The correct answer is (insert answer here)".'
_LETTER = "Answer with the letter of the correct choice and nothing else."
_STEPS = "Let’s think step by step:"
_ANSWER_TOKENS, _THOUGHT_TOKENS = 128, 1024


class LongBenchV2:
    """The benchmark, with or without chain of thought.

    Args:
        data: the folder with data.json, or a file of such rows; None fetches it from the hub.
        cot: whether to use chain of thought.
        letters: whether answers are constrained to a letter instead of the benchmark's sentence.
    """

    metric = "accuracy"

    def __init__(self, data: Path | None, *, cot: bool = False, letters: bool = False) -> None:
        self.name = "longbench-v2:cot" if cot else "longbench-v2"
        self._data = data
        self._cot = cot
        self._letters = letters

    def documents(self, context_tokens: int, count_tokens: CountTokens) -> Iterator[Sequence[Item]]:
        """See `Task.documents`."""
        for row in find_rows(self._data, "data.json", hub="THUDM/LongBench-v2"):
            require(row, _KEYS, self.name)
            yield [self._item(row)]

    def score(self, item: Item, answer: str) -> dict[str, float]:
        """See `Task.score`. An answer without a letter in the benchmark's form is wrong."""
        given = answer.strip() if self._letters else longbench_v2_letter(answer)
        return {"accuracy": float(given == item.references[0])}

    def _item(self, row: Row) -> Item:
        choices = "\n".join(f"({letter}) {str(row[f'choice_{letter}']).strip()}" for letter in "ABCD")
        question = f"What is the correct answer to this question: {row['question'].strip()}\nChoices:\n{choices}\n\n"
        form = one_of("ABCD") if self._letters else None
        last = _LETTER if self._letters else _FORMAT
        plural = "questions" if self._cot else "question"
        opening = f"Please read the following text and answer the {plural} below.\n\n"
        return Item(
            id=str(row["_id"]),
            document_id=str(row["_id"]),
            document=row["context"].strip(),
            before=f"{opening}<text>\n",
            after=f"\n</text>\n\n{question}{_STEPS if self._cot else last}",
            query=f"{row['question'].strip()}\n{choices}",
            references=(row["answer"],),
            max_new_tokens=_THOUGHT_TOKENS if self._cot else _ANSWER_TOKENS,
            form=None if self._cot else form,
            follow_up=(
                f"{opening}The text is too long and omitted here.\n\n{question}{_STEPS} {{answer}}\n\n"
                f"Based on the above, what is the single, most likely answer choice? {last}"
                if self._cot
                else ""
            ),
            follow_up_form=form if self._cot else None,
            follow_up_tokens=_ANSWER_TOKENS,
            groups={"difficulty": row["difficulty"], "length": row["length"]},
        )
