"""The interface of a benchmark: questions grouped by document, and a score for each answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

from rapid_integrations.config import StructuredOutput
from rapid_integrations.prompt import Prompt

CountTokens = Callable[[str], int]


@dataclass(frozen=True)
class Item:
    """A question over a document.

    Attributes:
        id: unique within its task, and the same in every run.
        document_id: id of the document. Items with the same one share the document and its prefill.
        document: the long text. It is the only part of the prompt that is truncated, retrieved from or replaced.
        before, after: the prompt's text before and after the document, including the question.
        query: the text that retrieval searches for.
        references: right answers, in the form that the task's `score` expects.
        max_new_tokens: maximum length of the answer.
        form: constraint of the answer (constrained decoding); None for free text.
        follow_up: a second prompt without the document, with {answer} in place of the first answer. If it is not "",
            its answer is scored.
        follow_up_form, follow_up_tokens: constraint and maximum length of that answer.
        groups: groups for the breakdown of results, as in {"difficulty": "hard"}.
    """

    id: str
    document_id: str
    document: str
    before: str
    after: str
    query: str
    references: tuple[str, ...]
    max_new_tokens: int
    form: StructuredOutput | None = None
    follow_up: str = ""
    follow_up_form: StructuredOutput | None = None
    follow_up_tokens: int = 0
    groups: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """A digest of what is asked, and of the right answers. A prediction counts only for an item with its digest."""
        parts = (_digest(self.document), self.before, self.after, self.query, self.follow_up, *self.references)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def prompt(self, document: str) -> Prompt:
        """Return the prompt over `document` (the item's own, a part of it, or what was retrieved)."""
        start = len(self.before)
        spans = ((start, start + len(document)),) if document else ()
        return Prompt(text=self.before + document + self.after, context_spans=spans, query=self.query)

    def without_context(self, document: str) -> Prompt:
        """Return the same prompt with `document` as text that both models read whole."""
        return Prompt.without_context(self.before + document + self.after, self.query)


@lru_cache(maxsize=8)  # the items of a document share it
def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class Task(Protocol):
    """A benchmark.

    Attributes:
        name: the name in commands and reports.
        metric: the score in tables and plots.
    """

    name: str
    metric: str

    def documents(self, context_tokens: int, count_tokens: CountTokens) -> Iterator[Sequence[Item]]:
        """Yield the items of one document after another, always in the same order.

        Args:
            context_tokens: length of the documents of generated tasks. Others leave truncation to the runner.
            count_tokens: counts the target's tokens.

        Raises:
            PromptError: a file is missing or malformed.
        """
        ...

    def score(self, item: Item, answer: str) -> dict[str, float]:
        """Return the answer's scores, each in [0, 1], `metric` among them."""
        ...


@dataclass(frozen=True)
class PlannedTask:
    """A task, the label of its predictions, and the maximum length of its documents in target tokens.

    If `context_tokens` is None, documents are as long as the target's window allows.
    """

    task: Task
    label: str
    context_tokens: int | None = None


def one_of(options: Sequence[str]) -> StructuredOutput:
    """Return the constraint of an answer that is exactly one of `options` (letters and digits)."""
    return StructuredOutput(regex="|".join(options))
