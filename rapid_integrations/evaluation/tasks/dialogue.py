"""A conversation after a long history, made of dialogues in the format of MT-Bench-101 (arXiv 2402.14762).

A row is {"task", "id", "history": [{"user", "bot"}, ...]}. The history holds many dialogues. Some of them lack their
last turn, and these turns are the questions. The benchmark lets a strong model judge the replies. Here they are
compared with the published reply ("f1" in tables, and "rougeL" if rouge-score is installed). The predictions hold both
for a judge of your own.
"""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from rapid_integrations.errors import PromptError
from rapid_integrations.evaluation.metrics import rouge, token_f1
from rapid_integrations.evaluation.tasks.base import CountTokens, Item
from rapid_integrations.evaluation.tasks.rows import Row, find_rows, require

_QUOTED = 160  # characters of a dialogue's first turn that identify it
_REPLY_TOKENS = 256


class Dialogue:
    """Replies to last turns of dialogues in a long history.

    Args:
        data: the folder with mtbench101.jsonl, or a file of such rows.
        number: number of histories.
        questions: number of dialogues per history that are continued.
        seed: seed of the order of the dialogues.
    """

    name = "dialogue"
    metric = "f1"

    def __init__(self, data: Path | None, number: int = 8, questions: int = 4, seed: int = 0) -> None:
        self._data = data
        self._number = number
        self._questions = questions
        self._seed = seed

    def documents(self, context_tokens: int, count_tokens: CountTokens) -> Iterator[Sequence[Item]]:
        """See `Task.documents`."""
        rows = find_rows(self._data, "mtbench101.jsonl", hub="")
        for row in rows:
            require(row, ("history",), self.name)
        asked = [row for row in rows if len(row["history"]) > 1]
        if len(asked) < self._questions:
            raise PromptError(
                f"the dialogues have {len(asked)} with more than one turn; a history needs {self._questions} to go on"
            )
        for number in range(self._number):
            rng = random.Random(f"{self._seed} {number}")
            yield self._items(number, rng.sample(asked, self._questions), rows, rng, context_tokens, count_tokens)

    def score(self, item: Item, answer: str) -> dict[str, float]:
        """See `Task.score`."""
        scores = {"f1": token_f1(answer, item.references)}
        if importlib.util.find_spec("rouge_score") is not None:
            scores["rougeL"] = rouge(answer, item.references)["rougeL"]
        return scores

    def _items(
        self,
        number: int,
        asked: Sequence[Row],
        rows: Sequence[Row],
        rng: random.Random,
        context_tokens: int,
        count: CountTokens,
    ) -> list[Item]:
        parts = [_transcript(row["history"][:-1]) for row in asked]
        others = [row for row in rows if row not in asked]
        rng.shuffle(others)
        length = sum(count(part) for part in parts)
        for row in others:
            part = _transcript(row["history"])
            length += count(part) + 2
            if length > context_tokens:
                break
            parts.append(part)
        rng.shuffle(parts)
        document = "\n\n".join(parts)
        return [self._item(number, index, row, document) for index, row in enumerate(asked)]

    def _item(self, number: int, index: int, row: Row, document: str) -> Item:
        first, last = row["history"][0]["user"], row["history"][-1]
        return Item(
            id=f"{number}.{row.get('id', index)}",
            document_id=str(number),
            document=document,
            before="Below is the record of a user's conversations with you, the assistant.\n\n",
            after=(
                "\n\nEnd of the record. The user comes back to the conversation that began with "
                f'"{first[:_QUOTED]}". Write the assistant\'s next reply.\n\nUSER: {last["user"]}'
            ),
            query=f"{first[:_QUOTED]}\n{last['user']}",
            references=(last["bot"],),
            max_new_tokens=_REPLY_TOKENS,
            groups={"ability": str(row["task"])} if "task" in row else {},
        )


def _transcript(turns: Sequence[Row]) -> str:
    return "\n".join(f"USER: {turn['user']}\nASSISTANT: {turn['bot']}" for turn in turns)
