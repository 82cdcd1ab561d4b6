"""What a benchmark is here: questions grouped by document, and a score for each answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rapid_integrations.config import StructuredOutput
from rapid_integrations.prompt import Prompt

CountTokens = Callable[[str], int]


@dataclass(frozen=True)
class Item:
    """A question over a document.

    Attributes:
        id: unique within its task, the same in every run.
        document_id: of the document; items with the same one share it, and its prefill.
        document: the long text; the only part of the prompt that is truncated, retrieved from or replaced.
        before, after: what the prompt says in front of the document and behind it, the question included.
        query: what retrieval searches for.
        references: right answers, in the form that the task's `score` wants.
        max_new_tokens: of the answer.
        form: what the answer must look like (constrained decoding); None: free text.
        follow_up: a second prompt without the document, with {answer} where the first answer goes; what it is
            answered with is scored then. "": none.
        follow_up_form, follow_up_tokens: form and length of that answer.
        groups: what results are broken down by, as in {"difficulty": "hard"}.
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

    def prompt(self, document: str) -> Prompt:
        """Return the prompt over `document` (the item's own, a part of it, or what was retrieved)."""
        start = len(self.before)
        spans = ((start, start + len(document)),) if document else ()
        return Prompt(text=self.before + document + self.after, context_spans=spans, query=self.query)


class Task(Protocol):
    """A benchmark.

    Attributes:
        name: as it is asked for and reported.
        metric: which of the scores tables and plots show.
    """

    name: str
    metric: str

    def documents(self, context_tokens: int, count_tokens: CountTokens) -> Iterator[Sequence[Item]]:
        """Yield the items of one document after another, always in the same order.

        Args:
            context_tokens: length of the documents, for tasks that make their own; others leave truncation to the
                runner.
            count_tokens: in the target's tokens.

        Raises:
            PromptError: a file that is missing or malformed.
        """
        ...

    def score(self, item: Item, answer: str) -> dict[str, float]:
        """Return the answer's scores, each in [0, 1], `metric` among them."""
        ...


@dataclass(frozen=True)
class PlannedTask:
    """A task, what its predictions are filed under, and its documents' length in target tokens at most.

    `context_tokens` None: as much as the target's window holds.
    """

    task: Task
    label: str
    context_tokens: int | None = None


def one_of(options: Sequence[str]) -> StructuredOutput:
    """Return the form of an answer that is one of `options` (letters and digits) and nothing else."""
    return StructuredOutput(regex="|".join(options))
