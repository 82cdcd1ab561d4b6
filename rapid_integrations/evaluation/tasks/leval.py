"""L-Eval (arXiv 2307.11088): 18 data sets of long documents with several questions each.

A row is {"input", "instructions": [...], "outputs": [...], "source", "evaluation"}; the evaluation is "exam" (letters,
True/False or an exact answer), "f1" or "rouge".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

from rapid_integrations.config import StructuredOutput
from rapid_integrations.errors import ConfigurationError
from rapid_integrations.evaluation.metrics import (
    exact_match,
    leval_letter,
    leval_letters,
    leval_reference_letters,
    rouge,
    token_f1,
)
from rapid_integrations.evaluation.tasks.base import CountTokens, Item, one_of
from rapid_integrations.evaluation.tasks.rows import Row, find_rows, require

SINGLE_CHOICE = ("tpo", "quality")
EXAM = (*SINGLE_CHOICE, "coursera", "sci_fi", "topic_retrieval_longchat")
ROUGE = (
    "gov_report_summ",
    "meeting_summ",
    "news_summ",
    "paper_assistant",
    "patent_summ",
    "review_summ",
    "tv_show_summ",
)
F1 = ("financial_qa", "legal_contract_qa", "multidoc_qa", "narrative_qa", "natural_question", "scientific_qa")
SUBSETS = (*EXAM, *F1, *ROUGE)
# Left out: gsm100 (its long input is a list of solved problems, not a document) and codeU (Python's output).

_LONG = "Now you are given a very long document. Please follow the instruction based on this document. "
_ONE_LETTER = (
    "For multi-choice questions, there is only a single correct option. Please only provide the letter corresponding "
    "to the answer (like A or B) when answering. "
)
_LETTERS = (
    "For multi-choice questions, there could be a single correct option or multiple correct options. Please only "
    "provide the letter corresponding to the answer (like A or AB) when answering. "
)
_OPENING = {
    "coursera": _LONG + _LETTERS,
    "sci_fi": (
        "Now you are given a scientific fiction. I will ask you some questions and the answer should be "
        '"True" or "False". Notice that you should answer the question based on the evidence in the document instead '
        "of your background knowledge. "
    ),
    "topic_retrieval_longchat": (
        "Below is a record of our previous conversation on many different topics. You are the ASSISTANT, and I am the "
        "USER. At the beginning of each topic, the USER will say 'I would like to discuss the topic of <TOPIC>'. "
        "Memorize each <TOPIC>. At the end of the record, I will ask you to retrieve the first/second/third topic "
        "names. Now the record start. "
    ),
}
_EXAM_TOKENS, _OPEN_TOKENS, _SUMMARY_TOKENS = 32, 128, 384


class LEval:
    """One of L-Eval's data sets.

    Args:
        subset: its name, as in `SUBSETS`.
        data: a folder with the published files; None fetches them from the hub.
        letters: whether multiple-choice answers are constrained to the letters.
    """

    def __init__(self, subset: str, data: Path | None, letters: bool = False) -> None:
        if subset not in SUBSETS:
            raise ConfigurationError(f"leval:{subset} is not supported; there are: {', '.join(SUBSETS)}")
        self.name = f"leval:{subset}"
        self.metric = "accuracy" if subset in EXAM else "f1" if subset in F1 else "rougeL"
        self._subset = subset
        self._data = data
        self._letters = letters

    def documents(self, context_tokens: int, count_tokens: CountTokens) -> Iterator[Sequence[Item]]:
        """See `Task.documents`."""
        folder = "Exam" if self._subset in EXAM else "Generation"
        rows = find_rows(
            self._data,
            f"{self._subset}.jsonl",
            hub="L4NLP/LEval",
            hub_path=f"LEval/{folder}/{self._subset}.jsonl",
        )
        for number, row in enumerate(rows):
            require(row, ("input", "instructions", "outputs"), self.name)
            yield self._items(number, row)

    def score(self, item: Item, answer: str) -> dict[str, float]:
        """See `Task.score`."""
        if self._subset == "coursera":
            return {"accuracy": float(leval_letters(answer.strip()) == item.references[0])}
        if self._subset in SINGLE_CHOICE:
            return {"accuracy": float(leval_letter(answer) == item.references[0])}
        if self._subset == "sci_fi":
            said = next((word for word in ("true", "false") if word in answer.lower().split("[fact")[0]), "")
            return {"accuracy": float(said == item.references[0])}
        if self._subset in EXAM:
            return {"accuracy": exact_match(answer, item.references), "f1": token_f1(answer, item.references)}
        f1 = {"f1": token_f1(answer, item.references)}
        return f1 if self._subset in F1 else f1 | rouge(answer, item.references)

    def _items(self, number: int, row: Row) -> list[Item]:
        document = row["input"]
        items = []
        for index, (question, output) in enumerate(zip(row["instructions"], row["outputs"], strict=True)):
            items.append(
                Item(
                    id=f"{number}.{index}",
                    document_id=str(number),
                    document=document,
                    before=_OPENING.get(self._subset, _LONG + (_ONE_LETTER if self._subset in EXAM else ""))
                    + "Document is as follows.\n\n",
                    after=f"\n\n{self._ask(question, output)}",
                    query=question,
                    references=(self._reference(output),),
                    max_new_tokens=self._tokens(),
                    form=self._form(question) if self._letters else None,
                )
            )
        return items

    def _ask(self, question: str, output: str) -> str:
        if self._subset in EXAM:
            return f"Question: {question}\nPlease directly give answer without any additional output or explanation.\n"
        return f"Instruction: {question}\nAnswer this question with {len(output.split())} words.\n"

    def _reference(self, output: str) -> str:
        if self._subset in (*SINGLE_CHOICE, "coursera"):
            return leval_reference_letters(output)
        # "True [fact: False]": what holds in the story, and what holds in the world (asked without the document).
        return output.lower().split("[fact:")[0].strip() if self._subset == "sci_fi" else output

    def _tokens(self) -> int:
        return _EXAM_TOKENS if self._subset in EXAM else _OPEN_TOKENS if self._subset in F1 else _SUMMARY_TOKENS

    def _form(self, question: str) -> StructuredOutput | None:
        if self._subset == "sci_fi":
            return one_of(("True", "False"))
        if self._subset == "coursera":
            return one_of(["".join(chosen) for size in range(1, 5) for chosen in combinations("ABCD", size)])
        return one_of("ABCD") if self._subset in SINGLE_CHOICE else None
