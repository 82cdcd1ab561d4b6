"""What a benchmark has measured before Ctrl-C is shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol


class AnswersByQuestion(Protocol):
    """The result of a benchmark that asks question by question.

    Attributes:
        runs: answers, each with the number of its question in `question`.
        prompt_tokens: of each question that was begun.
        interrupted: whether Ctrl-C ended it.
    """

    runs: list[Any]
    prompt_tokens: list[int]
    interrupted: bool


@contextmanager
def kept_if_interrupted(result: AnswersByQuestion) -> Iterator[None]:
    """Let Ctrl-C end the block, and keep the questions that have all of their answers.

    Raises:
        KeyboardInterrupt: there is none.
    """
    try:
        yield
    except KeyboardInterrupt:
        whole = len(result.prompt_tokens) - 1
        result.runs = [run for run in result.runs if run.question < whole]
        if not result.runs:
            raise
        del result.prompt_tokens[whole:]
        result.interrupted = True
